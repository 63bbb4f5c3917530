//! The command line. What libtest would take is let through where it changes nothing, so that `cargo test` with a filter
//! or a flag for the other tests does not stumble here.

use std::net::SocketAddr;
use std::time::Duration;

use crate::attack::{ALL, Attack};

/// How long a timed flood lasts.
const SECONDS: u64 = 10;

/// How hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Few connections, each until the gateway ends it.
    Short,
    /// As many as the flood consists of, which come again, for so long.
    Timed(Duration),
}

/// What is asked for.
pub(crate) enum Asked {
    Run(Arguments),
    List,
    /// To be the attackers.
    Attack(Order),
}

/// Which floods.
pub(crate) struct Arguments {
    pub(crate) pace: Pace,
    names: Vec<String>,
}

/// What attackers are told.
pub(crate) struct Order {
    pub(crate) attack: &'static Attack,
    pub(crate) address: SocketAddr,
    pub(crate) pace: Pace,
}

impl Order {
    /// As words for [`Arguments::parse`].
    pub(crate) fn words(&self) -> Vec<String> {
        let seconds = match self.pace {
            Pace::Short => 0,
            Pace::Timed(time) => time.as_secs(),
        };
        let words = ["--attack", self.attack.name, &self.address.to_string(), &seconds.to_string()];
        words.map(str::to_owned).to_vec()
    }

    fn parse(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let name = words.next()?;
        let attack = ALL.iter().find(|attack| attack.name == name)?;
        let address = words.next()?.parse().ok()?;
        let pace = match words.next()?.parse().ok()? {
            0 => Pace::Short,
            seconds => Pace::Timed(Duration::from_secs(seconds)),
        };
        Some(Self { attack, address, pace })
    }
}

impl Arguments {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Asked, String> {
        let (mut all, mut seconds, mut names) = (false, None, Vec::new());
        while let Some(word) = words.next() {
            let mut number = || -> Result<u64, String> {
                let value = words.next().ok_or(format!("{word} needs a number"))?;
                value.parse().map_err(|_| format!("{word} needs a number, not {value}"))
            };
            match word.as_str() {
                "--all" => all = true,
                "--list" => return Ok(Asked::List),
                "--seconds" => seconds = Some(number()?),
                "--attack" => {
                    let order = Order::parse(words).ok_or("--attack NAME ADDRESS SECONDS")?;
                    return Ok(Asked::Attack(order));
                }
                "--test-threads" => drop(number()?),
                "--nocapture" | "--no-capture" | "--exact" | "-q" | "--quiet" | "--show-output" => {
                }
                flag if flag.starts_with('-') => {
                    return Err(format!(
                        "{flag} is not known: NAME… | --all | --list, --seconds N"
                    ));
                }
                name => names.push(name.to_owned()),
            }
        }
        for name in &names {
            if !ALL.iter().any(|attack| attack.name == name) {
                // It may be meant for another test binary.
                eprintln!("no flood is called {name}; see --list");
            }
        }
        let time = Duration::from_secs(seconds.unwrap_or(SECONDS).max(1));
        let short = !all && names.is_empty() && seconds.is_none();
        let pace = if short { Pace::Short } else { Pace::Timed(time) };
        Ok(Asked::Run(Self { pace, names }))
    }

    /// Those that were asked for; without names, all.
    pub(crate) fn attacks(&self) -> impl Iterator<Item = &'static Attack> {
        let named =
            |name: &str| self.names.is_empty() || self.names.iter().any(|each| each == name);
        ALL.iter().filter(move |attack| named(attack.name))
    }
}
