//! The claim protocol at random: a fleet of senders and replicas for each seed, and the guarantee of DESIGN.md §3.
//!
//! `ONCEHOOK_SIM_SEED=17` runs one seed and prints what happened; `ONCEHOOK_SIM_RUNS=100000` runs more of them.

use oncehook::claim::record::Record;

use super::claim_fleet::{Fleet, Tally};
use super::claim_protocol::{MUTANTS, Mutant, Protocol, Told};

const RUNS: u64 = 200;

/// Within how many seeds a mutant must be found.
const MUTANT_RUNS: u64 = 4_000;

fn check(fleet: &Fleet) -> Option<String> {
    let Tally { accepted, unmarked, excuses, recorded, forgotten, .. } = fleet.tally;
    if accepted > 1 + excuses {
        return Some(format!("accepted {accepted} times with {excuses} excuses"));
    }
    if unmarked > 1 && !forgotten {
        return Some(format!("accepted {unmarked} times without a mark"));
    }
    if recorded && !forgotten && !matches!(fleet.shared, Record::Settled { .. }) {
        return Some("a verdict that reached the store is gone".to_owned());
    }
    None
}

/// Runs one seed to its end, and what became of it; else what was broken, and how.
fn run(seed: u64, protocol: Protocol) -> Result<Tally, String> {
    let mut fleet = Fleet::new(seed, protocol);
    fleet.run(check);
    let settled_in_peace = fleet.is_quiet() && fleet.tally.excuses == 0;
    if fleet.broken.is_none() && settled_in_peace {
        let served = fleet.senders.iter().all(|sender| sender.told.is_some_and(Told::acknowledges));
        if !served || fleet.tally.accepted != 1 {
            fleet.broken =
                Some(format!("{} deliveries in peace, all served: {served}", fleet.tally.accepted));
        }
    }
    if fleet.broken.is_none() {
        fleet.heal();
        fleet.run(check);
        let told = fleet.senders.last().and_then(|sender| sender.told);
        let expected = |told: Told| {
            told.acknowledges()
                || told == Told::Unknown
                || (fleet.is_refused() && told == Told::Refused)
        };
        if fleet.broken.is_none() && !told.is_some_and(expected) {
            fleet.broken = Some(format!("a sender that comes after all faults is told {told:?}"));
        }
    }
    match fleet.broken {
        Some(broken) => {
            Err(format!("seed {seed}: {broken}\n{:?}\n{}", fleet.terms, fleet.trace.join("\n")))
        }
        None => Ok(fleet.tally),
    }
}

#[expect(clippy::disallowed_methods, reason = "a seed is replayed by hand, not configured")]
fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|number| number.parse().expect("a number"))
}

#[test]
#[expect(clippy::print_stdout, reason = "what came of all seeds, for who tunes the simulation")]
fn the_protocol_keeps_its_guarantee_at_random() {
    let seeds = match number_from("ONCEHOOK_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number_from("ONCEHOOK_SIM_RUNS").unwrap_or(RUNS),
    };
    let replayed = seeds.end - seeds.start == 1;
    let mut sum = Tally::default();
    for seed in seeds {
        let tally = match run(seed, Protocol(None)) {
            Ok(tally) => tally,
            Err(broken) => panic!("{broken}\nreplay with ONCEHOOK_SIM_SEED={seed}"),
        };
        sum.add(&tally);
    }
    println!("{sum:?}");
    assert!(replayed || sum.has_seen_everything(), "the simulation misses something: {sum:?}");
}

#[test]
#[expect(clippy::print_stdout, reason = "how many seeds it takes, for who tunes the simulation")]
fn the_simulation_finds_the_mutants_of_the_protocol() {
    for mutant in MUTANTS.into_iter().filter(|mutant| *mutant != Mutant::ExchangesNotShared) {
        let broken = |seed| run(seed, Protocol(Some(mutant))).err().map(|broken| (seed, broken));
        let Some((seed, broken)) = (0..MUTANT_RUNS).find_map(broken) else {
            panic!("{mutant:?} is not found within {MUTANT_RUNS} seeds")
        };
        println!("{mutant:?}: {}", broken.lines().next().unwrap_or_default());
        assert!(
            run(seed, Protocol(None)).is_ok(),
            "seed {seed} shows nothing: the real protocol fails too"
        );
    }
}
