//! The table of DESIGN.md §5, row by row, and what holds of every sequence of operations.

use std::time::Duration;

use proptest::prelude::*;

use super::record::{Ending, Operation, Record, Reply, StoreTime, apply};
use super::{Digest, Owner, Verdict};

const WINDOW: Duration = Duration::from_hours(1);
const LEASE: Duration = Duration::from_secs(10);
const A: Owner = Owner(0xa);
const B: Owner = Owner(0xb);
const C: Owner = Owner(0xc);

const CLAIM: Operation = Operation::Claim { lease: LEASE, window: WINDOW };

fn settle(verdict: Verdict) -> Operation {
    Operation::Settle { verdict, digest: Digest(7), window: WINDOW }
}

fn release(ending: Ending, pause: Duration) -> Operation {
    Operation::Release { ending, pause, window: WINDOW }
}

fn won(attempt: u32, possible_duplicate: bool) -> Reply {
    Reply::Won { attempt, possible_duplicate }
}

/// Applies the steps, each at its own millisecond, and returns the replies.
fn replies(slot: &mut Record, steps: &[(u64, Owner, Operation)]) -> Vec<Reply> {
    steps
        .iter()
        .map(|(at, owner, operation)| apply(slot, *owner, operation, StoreTime(*at)))
        .collect()
}

#[test]
fn a_vacant_key_is_won_and_a_busy_one_says_how_long() {
    let mut slot = Record::Vacant;
    let replies = replies(&mut slot, &[(100, A, CLAIM), (600, B, CLAIM)]);
    assert_eq!(replies, [won(1, false), Reply::Busy { remaining: Duration::from_millis(9_500) }]);
    assert_eq!(slot, Record::Leased { owner: A, attempts: 1, lapses: 0, until: StoreTime(10_100) });
}

#[test]
fn a_repeated_claim_gets_the_same_attempt_and_mark_and_no_more_time() {
    let mut slot = Record::Vacant;
    let replies = replies(
        &mut slot,
        &[(0, A, CLAIM), (10_000, B, CLAIM), (10_100, B, CLAIM), (99_999, B, CLAIM)],
    );
    assert_eq!(replies, [won(1, false), won(2, true), won(2, true), won(2, true)]);
    assert_eq!(slot, Record::Leased { owner: B, attempts: 2, lapses: 1, until: StoreTime(20_000) });
}

#[test]
fn a_lease_lapses_at_its_end_and_not_a_millisecond_before() {
    let mut slot = Record::Vacant;
    let replies = replies(&mut slot, &[(0, A, CLAIM), (9_999, B, CLAIM), (10_000, B, CLAIM)]);
    assert_eq!(
        replies,
        [won(1, false), Reply::Busy { remaining: Duration::from_millis(1) }, won(2, true)]
    );
}

#[test]
fn a_failed_attempt_is_no_reason_for_a_mark_and_an_ambiguous_one_is() {
    for (ending, marked) in [(Ending::Failed, false), (Ending::Ambiguous, true)] {
        let mut slot = Record::Vacant;
        let steps = [(0, A, CLAIM), (1, A, release(ending, Duration::ZERO)), (2, B, CLAIM)];
        assert_eq!(replies(&mut slot, &steps), [won(1, false), Reply::Done, won(2, marked)]);
    }
}

#[test]
fn a_mark_survives_an_attempt_that_certainly_failed() {
    let mut slot = Record::Vacant;
    let steps = [
        (0, A, CLAIM),
        (1, A, release(Ending::Ambiguous, Duration::ZERO)),
        (2, B, CLAIM),
        (3, B, release(Ending::Failed, Duration::ZERO)),
        (4, C, CLAIM),
    ];
    assert_eq!(replies(&mut slot, &steps).last(), Some(&won(3, true)));
}

#[test]
fn a_pause_keeps_the_key_busy_until_it_has_passed() {
    let mut slot = Record::Vacant;
    let steps = [
        (0, A, CLAIM),
        (10, A, release(Ending::Failed, Duration::from_secs(2))),
        (11, B, CLAIM),
        (2_009, B, CLAIM),
        (2_010, B, CLAIM),
    ];
    let busy = |milliseconds| Reply::Busy { remaining: Duration::from_millis(milliseconds) };
    assert_eq!(replies(&mut slot, &steps)[2..], [busy(1_999), busy(1), won(2, false)]);
}

#[test]
fn a_settled_key_answers_every_claim_as_a_duplicate() {
    let mut slot = Record::Vacant;
    let steps = [
        (0, A, CLAIM),
        (1, A, settle(Verdict::Delivered(204))),
        (99_999, B, CLAIM),
        (99_999, A, CLAIM),
    ];
    let duplicate = Reply::Duplicate { verdict: Verdict::Delivered(204), digest: Digest(7) };
    assert_eq!(replies(&mut slot, &steps)[1..], [Reply::Done, duplicate, duplicate]);
}

#[test]
fn a_settle_needs_no_lease_but_says_that_it_had_none() {
    let settled = Record::Settled { verdict: Verdict::Delivered(200), digest: Digest(7) };
    let leased = Record::Leased { owner: B, attempts: 2, lapses: 1, until: StoreTime(10_000) };
    let released = Record::Released { attempts: 2, lapses: 0, not_before: StoreTime(0) };
    for before in [Record::Vacant, leased, released] {
        let mut slot = before;
        assert_eq!(
            apply(&mut slot, A, &settle(Verdict::Delivered(200)), StoreTime(5)),
            Reply::Fenced
        );
        assert_eq!(slot, settled);
    }
}

#[test]
fn the_first_verdict_stays_but_for_a_delivery_and_the_last_delivery_stays() {
    let first = [Verdict::Delivered(200), Verdict::Refused(400), Verdict::Unknown];
    let second = [Verdict::Delivered(202), Verdict::Refused(410), Verdict::Unknown];
    let mut kept = 0;
    for (known, verdict) in
        first.into_iter().flat_map(|known| second.map(|verdict| (known, verdict)))
    {
        let mut slot = Record::Settled { verdict: known, digest: Digest(1) };
        assert_eq!(apply(&mut slot, B, &settle(verdict), StoreTime(0)), Reply::AlreadySettled);
        let delivered = verdict == Verdict::Delivered(202);
        kept += u32::from(!delivered);
        assert_eq!(settle(verdict).always_writes(), delivered);
        let expected = if delivered { (verdict, Digest(7)) } else { (known, Digest(1)) };
        assert_eq!(
            slot,
            Record::Settled { verdict: expected.0, digest: expected.1 },
            "{known:?} then {verdict:?}"
        );
    }
    assert_eq!(kept, 6);
}

#[test]
fn a_release_by_anyone_else_changes_nothing() {
    let records = [
        Record::Vacant,
        Record::Leased { owner: B, attempts: 2, lapses: 1, until: StoreTime(1) },
        Record::Released { attempts: 2, lapses: 0, not_before: StoreTime(0) },
        Record::Settled { verdict: Verdict::Unknown, digest: Digest(1) },
    ];
    for before in records {
        let mut slot = before;
        assert_eq!(
            apply(&mut slot, A, &release(Ending::Failed, LEASE), StoreTime(5)),
            Reply::Fenced
        );
        assert_eq!(slot, before);
    }
}

#[test]
fn counters_and_times_stay_at_their_ends() {
    let mut slot =
        Record::Leased { owner: A, attempts: u32::MAX, lapses: u32::MAX, until: StoreTime(0) };
    let forever = Operation::Claim { lease: Duration::MAX, window: WINDOW };
    assert_eq!(apply(&mut slot, B, &forever, StoreTime(1)), won(u32::MAX, true));
    assert_eq!(
        slot,
        Record::Leased {
            owner: B,
            attempts: u32::MAX,
            lapses: u32::MAX,
            until: StoreTime(u64::MAX)
        }
    );
}

#[test]
#[should_panic(expected = "more attempts lapsed than were made")]
fn a_record_that_cannot_be_is_not_worked_on() {
    let mut slot = Record::Released { attempts: 1, lapses: 2, not_before: StoreTime(0) };
    apply(&mut slot, A, &CLAIM, StoreTime(0));
}

fn verdicts() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        (200u16..300).prop_map(Verdict::Delivered),
        (400u16..500).prop_map(Verdict::Refused),
        Just(Verdict::Unknown)
    ]
}

fn operations() -> impl Strategy<Value = Operation> {
    let milliseconds = || (0u64..40).prop_map(Duration::from_millis);
    let endings = prop_oneof![Just(Ending::Failed), Just(Ending::Ambiguous)];
    prop_oneof![
        3 => milliseconds().prop_map(|lease| Operation::Claim { lease, window: WINDOW }),
        1 => (verdicts(), any::<u64>()).prop_map(|(verdict, digest)| {
            Operation::Settle { verdict, digest: Digest(digest), window: WINDOW }
        }),
        2 => (endings, milliseconds()).prop_map(|(ending, pause)| release(ending, pause)),
    ]
}

/// Steps of a few owners, with the milliseconds that pass before each.
fn steps() -> impl Strategy<Value = Vec<(u64, Owner, Operation)>> {
    prop::collection::vec((0u64..30, (0u128..4).prop_map(Owner), operations()), 1..40)
}

/// Attempts and lapses; `None` once settled or before the first claim.
fn counts(record: &Record) -> Option<(u32, u32)> {
    match *record {
        Record::Leased { attempts, lapses, .. } | Record::Released { attempts, lapses, .. } => {
            Some((attempts, lapses))
        }
        Record::Vacant | Record::Settled { .. } => None,
    }
}

proptest! {
    #[test]
    fn attempts_and_lapses_never_shrink_and_a_record_is_never_forgotten(steps in steps()) {
        let (mut slot, mut now) = (Record::Vacant, StoreTime(0));
        for (after, owner, operation) in steps {
            let before = slot;
            now = now.plus(Duration::from_millis(after));
            apply(&mut slot, owner, &operation, now);
            prop_assert!(slot != Record::Vacant || before == Record::Vacant);
            if let (Some((attempts, lapses)), Some((attempts_now, lapses_now))) = (counts(&before), counts(&slot)) {
                prop_assert!(attempts <= attempts_now && attempts_now <= attempts + 1);
                prop_assert!(lapses <= lapses_now && lapses_now <= lapses + 1);
            }
        }
    }

    #[test]
    fn each_attempt_number_belongs_to_one_owner_and_each_mark_to_a_lapse(steps in steps()) {
        let (mut slot, mut now) = (Record::Vacant, StoreTime(0));
        let mut winners = Vec::new();
        for (after, owner, operation) in steps {
            now = now.plus(Duration::from_millis(after));
            if let Reply::Won { attempt, possible_duplicate } = apply(&mut slot, owner, &operation, now) {
                prop_assert_eq!(counts(&slot).map(|(attempts, lapses)| (attempts, lapses > 0)), Some((attempt, possible_duplicate)));
                winners.push((attempt, owner));
            }
        }
        winners.dedup();
        let numbers: Vec<u32> = winners.iter().map(|(attempt, _)| *attempt).collect();
        let expected: Vec<u32> = (1..).take(numbers.len()).collect();
        prop_assert_eq!(numbers, expected);
    }

    #[test]
    fn a_settled_record_stays_settled_and_a_delivery_stays_one(steps in steps()) {
        let (mut slot, mut now) = (Record::Vacant, StoreTime(0));
        for (after, owner, operation) in steps {
            let before = slot;
            now = now.plus(Duration::from_millis(after));
            let reply = apply(&mut slot, owner, &operation, now);
            if let Record::Settled { verdict, .. } = before {
                let settled = matches!(slot, Record::Settled { .. });
                prop_assert!(settled);
                let is_delivered = matches!(slot, Record::Settled { verdict: Verdict::Delivered(_), .. });
                prop_assert!(is_delivered || !matches!(verdict, Verdict::Delivered(_)));
                let delivers = matches!(operation, Operation::Settle { verdict: Verdict::Delivered(_), .. });
                prop_assert!(slot == before || delivers);
                let denied = matches!(reply, Reply::Duplicate { .. } | Reply::AlreadySettled | Reply::Fenced);
                prop_assert!(denied);
            }
        }
    }

    #[test]
    fn no_owner_wins_while_another_holds_a_running_lease(steps in steps()) {
        let (mut slot, mut now) = (Record::Vacant, StoreTime(0));
        for (after, owner, operation) in steps {
            let before = slot;
            now = now.plus(Duration::from_millis(after));
            let reply = apply(&mut slot, owner, &operation, now);
            if let Record::Leased { owner: holder, until, .. } = before
                && holder != owner
                && now < until
            {
                let denied = matches!(reply, Reply::Busy { .. } | Reply::Fenced);
                let settles = matches!(operation, Operation::Settle { .. });
                prop_assert!(denied);
                prop_assert!(slot == before || settles);
            }
        }
    }

    #[test]
    fn any_operation_repeated_at_once_changes_nothing_more(steps in steps()) {
        let (mut slot, mut now) = (Record::Vacant, StoreTime(0));
        for (after, owner, operation) in steps {
            now = now.plus(Duration::from_millis(after));
            let reply = apply(&mut slot, owner, &operation, now);
            let once = slot;
            let repeated = apply(&mut slot, owner, &operation, now);
            prop_assert_eq!(slot, once);
            if matches!(operation, Operation::Claim { .. }) {
                prop_assert_eq!(repeated, reply);
            }
        }
    }
}
