//! The campaign's command line. What libtest would take is let through where it changes nothing, so that `cargo test`
//! with a filter or a flag for the other tests does not stumble here.

use crate::scenarios::{ALL, Scenario};
use crate::world::Plan;

/// The seed of every run that names none.
const SEED: u64 = 1;

/// Which scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// Those that CI runs.
    Short,
    All,
    Named,
    List,
}

/// What was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    pub(crate) selection: Selection,
    pub(crate) seed: u64,
    events: Option<u64>,
    logs: bool,
    names: Vec<String>,
}

impl Arguments {
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut all = Self {
            selection: Selection::Short,
            seed: SEED,
            events: None,
            logs: false,
            names: Vec::new(),
        };
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            let mut number = || -> Result<u64, String> {
                let value = words.next().ok_or(format!("{word} needs a number"))?;
                value.parse().map_err(|_| format!("{word} needs a number, not {value}"))
            };
            match word.as_str() {
                "--all" => all.selection = Selection::All,
                "--logs" => all.logs = true,
                "--list" => all.selection = Selection::List,
                "--seed" => all.seed = number()?,
                "--events" => all.events = Some(number()?),
                "--test-threads" => drop(number()?),
                "--nocapture" | "--no-capture" | "--exact" | "-q" | "--quiet" | "--show-output" => {
                }
                flag if flag.starts_with('-') => {
                    return Err(format!(
                        "{flag} is not known: NAME… | --all | --list, --seed N, --events N, --logs"
                    ));
                }
                name => all.names.push(name.to_owned()),
            }
        }
        if !all.names.is_empty() && all.selection == Selection::Short {
            all.selection = Selection::Named;
        }
        for name in &all.names {
            if !ALL.iter().any(|scenario| scenario.name == name) {
                // It may be meant for another test binary.
                eprintln!("no scenario is called {name}; see --list");
            }
        }
        Ok(all)
    }

    pub(crate) fn plan(&self, scenario: &Scenario) -> Plan {
        Plan {
            scenario: scenario.name,
            seed: self.seed,
            events: self.events,
            short: self.selection == Selection::Short,
            named: self.names.iter().any(|name| name == scenario.name),
            logs: self.logs,
        }
    }

    pub(crate) fn takes(&self, scenario: &Scenario) -> bool {
        match self.selection {
            Selection::Short => scenario.short,
            Selection::All => true,
            Selection::Named => self.names.iter().any(|name| name == scenario.name),
            Selection::List => false,
        }
    }
}
