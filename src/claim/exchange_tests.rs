//! One exchange, effect by effect. What many of them do to each other: `tests/it/claim_model.rs`, `claim_sim.rs`.

use std::time::Duration;

use proptest::prelude::*;

use crate::clock::Monotonic;

use super::exchange::{
    Answer, Conclusion, Effect, Exchange, Input, OnAmbiguous, OnStoreError, Outcome, Place, Terms,
};
use super::record::{Ending, Operation, Reply};
use super::{Digest, Owner, Verdict};

const TERMS: Terms = Terms {
    lease: Duration::from_secs(10),
    guard: Duration::from_secs(2),
    join_wait: Duration::from_secs(5),
    window: Duration::from_hours(1),
    on_ambiguous: OnAmbiguous::Retry,
    on_store_error: OnStoreError::Reject,
};
const OWNER: Owner = Owner(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
const DIGEST: Digest = Digest(7);
const CLAIM: Operation = Operation::Claim { lease: TERMS.lease, window: TERMS.window };
const WON: Input = Input::Replied(Reply::Won { attempt: 1, possible_duplicate: false });
const LOST: Input = Input::StoreFailed { outage: Duration::from_millis(250) };
const DONE: Input = Input::Replied(Reply::Done);

fn at(milliseconds: u64) -> Monotonic {
    Monotonic::from_origin(Duration::from_millis(milliseconds))
}

fn busy(milliseconds: u64) -> Input {
    Input::Replied(Reply::Busy { remaining: Duration::from_millis(milliseconds) })
}

fn forward(attempt: u32, possible_duplicate: bool, deadline: u64) -> Effect {
    Effect::Forward { attempt, possible_duplicate, deadline: at(deadline) }
}

fn settle(verdict: Verdict) -> Operation {
    Operation::Settle { verdict, digest: DIGEST, window: TERMS.window }
}

fn release(ending: Ending, pause_seconds: u64) -> Operation {
    Operation::Release { ending, pause: Duration::from_secs(pause_seconds), window: TERMS.window }
}

fn answer(conclusion: Conclusion, unfinished: Option<Operation>) -> Effect {
    Effect::Answer(Answer { conclusion, unfinished })
}

/// The effects of an exchange that starts at 0, the first included.
fn effects(terms: Terms, inputs: &[(u64, Input)]) -> Vec<Effect> {
    let (mut exchange, first) = Exchange::start(terms, OWNER, DIGEST, at(0));
    let rest = inputs.iter().map(|(now, input)| exchange.step(*input, at(*now)));
    std::iter::once(first).chain(rest).collect()
}

/// The last of them.
fn outcome(terms: Terms, inputs: &[(u64, Input)]) -> Effect {
    *effects(terms, inputs).last().unwrap()
}

#[test]
fn a_new_event_is_claimed_forwarded_settled_and_then_answered() {
    let delivered = Outcome::Delivered(204);
    let effects = effects(TERMS, &[(1, WON), (50, Input::Forwarded(delivered)), (51, DONE)]);
    let expected = [
        Effect::Store(Place::Shared, CLAIM),
        forward(1, false, 8_000),
        Effect::Store(Place::Shared, settle(Verdict::Delivered(204))),
        answer(Conclusion::Forwarded(delivered), None),
    ];
    assert_eq!(effects, expected);
}

#[test]
fn a_settled_event_is_answered_at_once_and_other_content_is_a_conflict() {
    for (digest, conflict) in [(DIGEST, false), (Digest(8), true)] {
        let verdict = Verdict::Refused(410);
        let duplicate = Input::Replied(Reply::Duplicate { verdict, digest });
        let expected = answer(Conclusion::Duplicate { verdict, conflict }, None);
        assert_eq!(outcome(TERMS, &[(1, duplicate)]), expected);
    }
}

#[test]
fn every_outcome_is_recorded_as_the_design_says() {
    let overloaded = |seconds: Option<u64>| Outcome::Overloaded {
        status: 429,
        retry_after: seconds.map(Duration::from_secs),
    };
    let failed = |pause| release(Ending::Failed, pause);
    let table = [
        (Outcome::Refused(410), settle(Verdict::Refused(410)), Outcome::Refused(410)),
        (Outcome::Misconfigured(401), failed(0), Outcome::Misconfigured(401)),
        (overloaded(None), failed(0), overloaded(None)),
        (overloaded(Some(0)), failed(2), overloaded(Some(2))),
        (overloaded(Some(3)), failed(3), overloaded(Some(3))),
        (overloaded(Some(86_400)), failed(10), overloaded(Some(10))),
        (Outcome::Failed(Some(500)), failed(0), Outcome::Failed(Some(500))),
        (Outcome::Unreached, failed(0), Outcome::Unreached),
        (Outcome::Ambiguous, release(Ending::Ambiguous, 0), Outcome::Ambiguous),
    ];
    for (forwarded, operation, told) in table {
        let effects = effects(TERMS, &[(1, WON), (2, Input::Forwarded(forwarded)), (3, DONE)]);
        let expected =
            [Effect::Store(Place::Shared, operation), answer(Conclusion::Forwarded(told), None)];
        assert_eq!(effects[2..], expected);
    }
}

#[test]
fn an_ambiguous_forward_is_settled_as_unknown_under_suppress() {
    let terms = Terms { on_ambiguous: OnAmbiguous::Suppress, ..TERMS };
    let effects = effects(terms, &[(1, WON), (2, Input::Forwarded(Outcome::Ambiguous)), (3, DONE)]);
    let expected = [
        Effect::Store(Place::Shared, settle(Verdict::Unknown)),
        answer(Conclusion::Suppressed, None),
    ];
    assert_eq!(effects[2..], expected);
}

#[test]
fn a_double_or_a_lost_lease_changes_no_verdict() {
    let delivered = Outcome::Delivered(200);
    for reply in [Reply::AlreadySettled, Reply::Fenced] {
        let inputs = [(1, WON), (2, Input::Forwarded(delivered)), (3, Input::Replied(reply))];
        assert_eq!(outcome(TERMS, &inputs), answer(Conclusion::Forwarded(delivered), None));
    }
}

#[test]
fn a_claim_that_is_won_too_late_is_given_back_instead_of_forwarded() {
    let effects = effects(TERMS, &[(8_000, WON), (8_001, DONE)]);
    let busy = Conclusion::Busy { retry_after: Duration::from_secs(1) };
    assert_eq!(
        effects[1..],
        [Effect::Store(Place::Shared, release(Ending::Failed, 0)), answer(busy, None)]
    );
    assert_eq!(outcome(TERMS, &[(7_999, WON)]), forward(1, false, 8_000));
}

#[test]
fn a_lost_reply_repeats_the_claim_and_keeps_the_deadline_of_the_first() {
    let effects = effects(TERMS, &[(250, LOST), (300, WON)]);
    assert_eq!(effects[1..], [Effect::Store(Place::Shared, CLAIM), forward(1, false, 8_000)]);
}

#[test]
fn a_busy_reply_starts_the_deadline_anew_but_not_after_a_lost_one() {
    let woke = |now| [(1, busy(900)), (now, Input::Woke), (now + 1, WON)];
    assert_eq!(outcome(TERMS, &woke(900)), forward(1, false, 8_900));
    let lost = [(250, LOST), (260, busy(900)), (900, Input::Woke), (901, WON)];
    assert_eq!(outcome(TERMS, &lost), forward(1, false, 8_000));
}

#[test]
fn a_copy_that_had_to_wait_is_forwarded_within_the_senders_patience() {
    let inputs = [(1, busy(9_000)), (4_900, Input::Woke), (4_901, WON)];
    assert_eq!(outcome(TERMS, &inputs), forward(1, false, 9_000));
}

#[test]
fn a_busy_copy_polls_ever_more_slowly_and_then_says_when_to_come_back() {
    let (mut exchange, _) = Exchange::start(TERMS, OWNER, DIGEST, at(0));
    let mut waits = Vec::new();
    let mut now = at(0);
    let last = loop {
        match exchange.step(busy(4_000), now) {
            Effect::Wait(wait) => {
                waits.push(wait);
                now = now.plus(wait);
                assert_eq!(exchange.step(Input::Woke, now), Effect::Store(Place::Shared, CLAIM));
            }
            end @ (Effect::Store(..) | Effect::Forward { .. } | Effect::Answer(_)) => break end,
        }
    };
    assert_eq!(last, answer(Conclusion::Busy { retry_after: Duration::from_secs(5) }, None));
    assert_eq!(waits.iter().sum::<Duration>(), TERMS.join_wait);
    for (wait, base) in waits[..waits.len() - 1]
        .iter()
        .zip([50, 100, 200].into_iter().chain(std::iter::repeat(250)))
    {
        let base = Duration::from_millis(base);
        assert!(*wait >= base * 3 / 4 && *wait < base * 5 / 4, "{wait:?} is not about {base:?}");
    }
    assert!(waits.len() > 15, "{waits:?}");
}

#[test]
fn a_store_that_names_an_absurd_lease_does_not_send_the_sender_away_for_ever() {
    let inputs = [(5_000, Input::Replied(Reply::Busy { remaining: Duration::MAX }))];
    assert_eq!(
        outcome(TERMS, &inputs),
        answer(Conclusion::Busy { retry_after: Duration::from_secs(11) }, None)
    );
}

#[test]
fn a_rejected_copy_gives_back_what_its_lost_claim_may_have_taken() {
    let effects = effects(TERMS, &[(250, LOST), (500, LOST)]);
    let expected = [
        Effect::Store(Place::Shared, CLAIM),
        answer(Conclusion::StoreUnavailable, Some(release(Ending::Failed, 0))),
    ];
    assert_eq!(effects[1..], expected);
}

#[test]
fn a_replica_alone_marks_what_it_forwards_and_writes_the_verdict_back() {
    let terms = Terms { on_store_error: OnStoreError::Local, ..TERMS };
    let delivered = Outcome::Delivered(200);
    let inputs =
        [(250, LOST), (500, LOST), (500, WON), (600, Input::Forwarded(delivered)), (600, DONE)];
    let settled = settle(Verdict::Delivered(200));
    let expected = [
        Effect::Store(Place::Shared, CLAIM),
        Effect::Store(Place::Local, CLAIM),
        forward(1, true, 8_000),
        Effect::Store(Place::Local, settled),
        answer(Conclusion::Forwarded(delivered), Some(settled)),
    ];
    assert_eq!(effects(terms, &inputs)[1..], expected);
}

#[test]
fn a_copy_that_ends_without_an_attempt_in_local_mode_gives_the_shared_lease_back() {
    let terms = Terms { on_store_error: OnStoreError::Local, ..TERMS };
    let verdict = Verdict::Delivered(200);
    let duplicate = Input::Replied(Reply::Duplicate { verdict, digest: DIGEST });
    let inputs = [(250, LOST), (500, LOST), (500, duplicate)];
    let expected = Conclusion::Duplicate { verdict, conflict: false };
    assert_eq!(outcome(terms, &inputs), answer(expected, Some(release(Ending::Failed, 0))));
    let inputs = [(250, LOST), (500, LOST), (5_000, busy(1_000))];
    let expected = Conclusion::Busy { retry_after: Duration::from_secs(2) };
    assert_eq!(outcome(terms, &inputs), answer(expected, Some(release(Ending::Failed, 0))));
}

#[test]
fn a_replica_decides_alone_only_after_the_time_that_the_policy_names() {
    let after = Duration::from_secs(30);
    let terms = Terms { on_store_error: OnStoreError::RejectThenLocal(after), ..TERMS };
    let failed = |outage| [(250, LOST), (500, Input::StoreFailed { outage })];
    assert_eq!(outcome(terms, &failed(after)), Effect::Store(Place::Local, CLAIM));
    let rejected = answer(Conclusion::StoreUnavailable, Some(release(Ending::Failed, 0)));
    assert_eq!(outcome(terms, &failed(Duration::from_millis(29_999))), rejected);
}

#[test]
fn a_settle_that_fails_is_kept_locally_and_left_to_the_background() {
    let delivered = Outcome::Delivered(200);
    let settled = settle(Verdict::Delivered(200));
    for local in [DONE, Input::Replied(Reply::Fenced), LOST] {
        let effects = effects(
            TERMS,
            &[(1, WON), (2, Input::Forwarded(delivered)), (252, LOST), (252, local)],
        );
        let expected = [
            Effect::Store(Place::Local, settled),
            answer(Conclusion::Forwarded(delivered), Some(settled)),
        ];
        assert_eq!(effects[3..], expected);
    }
}

#[test]
fn a_release_that_fails_is_left_to_the_background() {
    let inputs = [(1, WON), (2, Input::Forwarded(Outcome::Ambiguous)), (252, LOST)];
    let unfinished = Some(release(Ending::Ambiguous, 0));
    assert_eq!(
        outcome(TERMS, &inputs),
        answer(Conclusion::Forwarded(Outcome::Ambiguous), unfinished)
    );
}

#[test]
fn a_reply_that_does_not_belong_to_the_operation_is_as_good_as_none() {
    let mut claims = 0;
    for reply in [Reply::Done, Reply::AlreadySettled, Reply::Fenced].map(Input::Replied) {
        let rejected = answer(Conclusion::StoreUnavailable, Some(release(Ending::Failed, 0)));
        assert_eq!(outcome(TERMS, &[(1, reply), (2, reply)]), rejected);
        claims += 1;
    }
    assert_eq!(claims, 3);
    let duplicate = Input::Replied(Reply::Duplicate { verdict: Verdict::Unknown, digest: DIGEST });
    for reply in [WON, busy(1), duplicate] {
        let failed = Outcome::Failed(Some(500));
        let inputs = [(1, WON), (2, Input::Forwarded(failed)), (3, reply)];
        let unfinished = Some(release(Ending::Failed, 0));
        assert_eq!(outcome(TERMS, &inputs), answer(Conclusion::Forwarded(failed), unfinished));
    }
}

#[test]
#[should_panic(expected = "answers no effect of")]
fn an_input_that_answers_no_effect_is_a_bug_of_the_shell() {
    outcome(TERMS, &[(1, Input::Woke)]);
}

/// What a shell could feed back to `effect`, whatever the store or the backend makes up; `None` once it is over.
fn fitting(effect: Effect, reply: Reply, forwarded: Outcome, fails: u8) -> Option<Input> {
    match effect {
        Effect::Store(..) if fails == 0 => Some(LOST),
        Effect::Store(..) => Some(Input::Replied(reply)),
        Effect::Wait(_) => Some(Input::Woke),
        Effect::Forward { .. } => Some(Input::Forwarded(forwarded)),
        Effect::Answer(_) => None,
    }
}

fn any_reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        1 => (any::<u32>(), any::<bool>())
            .prop_map(|(attempt, possible_duplicate)| Reply::Won { attempt, possible_duplicate }),
        4 => any::<u64>().prop_map(|remaining| Reply::Busy { remaining: Duration::from_millis(remaining) }),
        1 => any::<u64>().prop_map(|digest| Reply::Duplicate { verdict: Verdict::Unknown, digest: Digest(digest) }),
        1 => Just(Reply::Done),
        1 => Just(Reply::AlreadySettled),
        1 => Just(Reply::Fenced),
    ]
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Delivered(200)),
        Just(Outcome::Refused(400)),
        Just(Outcome::Misconfigured(401)),
        Just(Outcome::Overloaded { status: 503, retry_after: Some(Duration::from_secs(99)) }),
        Just(Outcome::Failed(None)),
        Just(Outcome::Unreached),
        Just(Outcome::Ambiguous),
    ]
}

fn any_terms() -> impl Strategy<Value = Terms> {
    let policies = prop_oneof![
        Just(OnStoreError::Local),
        Just(OnStoreError::Reject),
        Just(OnStoreError::RejectThenLocal(Duration::from_millis(250))),
    ];
    let ambiguous = prop_oneof![Just(OnAmbiguous::Retry), Just(OnAmbiguous::Suppress)];
    (policies, ambiguous).prop_map(|(on_store_error, on_ambiguous)| Terms {
        on_ambiguous,
        on_store_error,
        ..TERMS
    })
}

proptest! {
    #[test]
    fn whatever_store_and_backend_say_the_exchange_ends_in_time_and_lies_to_nobody(
        terms in any_terms(),
        owner in any::<u128>(),
        script in prop::collection::vec((any_reply(), any_outcome(), 0u8..4, 1u64..250), 64),
    ) {
        let (mut exchange, mut effect) = Exchange::start(terms, Owner(owner), DIGEST, at(0));
        let mut now = at(0);
        let mut forwards = Vec::new();
        for (reply, forwarded, fails, takes) in script {
            let Some(input) = fitting(effect, reply, forwarded, fails) else { break };
            if let Effect::Forward { deadline, .. } = effect {
                prop_assert!(now < deadline && deadline <= at(9_000));
                forwards.push(forwarded);
            }
            now = now.plus(if let Effect::Wait(wait) = effect { wait } else { Duration::from_millis(takes) });
            effect = exchange.step(input, now);
        }
        let Effect::Answer(Answer { conclusion, .. }) = effect else {
            return Err(TestCaseError::fail(format!("no end: {exchange:?}")));
        };
        prop_assert!(forwards.len() <= 1);
        prop_assert!(now <= at(5_000 + 8 * 250), "answered at {:?}", now);
        match conclusion {
            Conclusion::Forwarded(outcome) => {
                let same_kind = forwards.first().map(std::mem::discriminant) == Some(std::mem::discriminant(&outcome));
                prop_assert!(same_kind);
            }
            Conclusion::Suppressed => prop_assert_eq!(forwards.first(), Some(&Outcome::Ambiguous)),
            Conclusion::Busy { retry_after } => {
                prop_assert!(retry_after >= Duration::from_secs(1) && retry_after <= Duration::from_secs(11));
            }
            Conclusion::Duplicate { .. } | Conclusion::StoreUnavailable => prop_assert!(forwards.is_empty()),
        }
    }
}
