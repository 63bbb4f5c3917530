//! How long the pure rooms take: a webhook verified and told apart, a store's step, an exchange's whole way.
//!
//! ```text
//! cargo bench --bench pure               all; Criterion compares with the run before
//! cargo bench --bench pure -- --quick    a first impression
//! cargo bench --bench pure -- identify   one of them
//! ```
//!
//! What the whole gateway takes beside others is measured elsewhere; a figure here says which room a change came from.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::as_conversions,
    reason = "a benchmark that meets what it did not expect should stop and say so"
)]

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use oncehook::claim::exchange::{
    Answer, Conclusion, Effect, Exchange, Input, OnAmbiguous, OnStoreError, Outcome, Terms,
};
use oncehook::claim::record::{Operation, Record, Reply, StoreTime, apply};
use oncehook::claim::{Digest, Owner, Verdict};
use oncehook::clock::{self, Monotonic, UnixTime};
use oncehook::webhook::event::EventKind;
use oncehook::webhook::key::{Basis, Identity, identify};
use oncehook::webhook::sample::{self, Subject};
use oncehook::webhook::verify::{KeyRing, Tenant, Verifier, sign};
use secrecy::SecretString;

/// Bytes of LiveKit's bodies: bare, with little and with much metadata, and near its limit.
const SIZES: [usize; 4] = [900, 2_500, 16 * 1024, 256 * 1024];
/// More steps than an exchange that is not disturbed takes.
const STEPS_MAX: usize = 8;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    webhooks(&mut criterion);
    store(&mut criterion);
    exchange(&mut criterion);
    criterion.final_summary();
}

/// A webhook whose body is about so long; its participant's metadata, JSON in a string as applications put it there,
/// makes up what is missing.
fn webhook(bytes: usize, now: UnixTime) -> (Bytes, String) {
    let member = r#"guest\",\"another role\":\""#;
    let subject = Subject::numbered(1, now);
    let body = sample::body(EventKind::ParticipantJoined, &subject, "EV_1", now.seconds());
    let body = String::from_utf8(body).expect("JSON is UTF-8");
    assert!(body.contains(r#"\"guest"#), "the sample has metadata, which is JSON");
    let members = bytes.saturating_sub(body.len()) / member.len();
    let body = body.replace("guest", &(member.repeat(members) + "guest"));
    let secret = SecretString::from("secret");
    let token = sign("devkey", &secret, body.as_bytes(), now, Duration::from_mins(5));
    (Bytes::from(body), token.expect("it is signed"))
}

/// Verification and identity, by the size of the body.
fn webhooks(criterion: &mut Criterion) {
    let now = clock::unix();
    let key = (Tenant::from("bench"), "devkey".to_owned(), SecretString::from("secret"));
    let verifier = Verifier::new(KeyRing::new([key]).expect("one key is a ring"));
    let verify = |body: &Bytes, token: &str| {
        let signature = verifier.check_token(token.as_bytes(), now).expect("it is genuine");
        verifier.check_body(signature, body.clone()).expect("it is genuine")
    };
    for bytes in SIZES {
        let (body, token) = webhook(bytes, now);
        let webhook = verify(&body, &token);
        let keyed = identify(&webhook, "/webhook", &Identity::Event);
        assert_eq!(keyed.basis, Basis::Event, "the sample is of an event that has a key");
        let mut group = criterion.benchmark_group("webhook");
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::new("verify", bytes), |bencher| {
            bencher.iter(|| verify(black_box(&body), black_box(&token)));
        });
        group.bench_function(BenchmarkId::new("identify", bytes), |bencher| {
            bencher.iter(|| {
                black_box(identify(black_box(&webhook), "/webhook", &Identity::Event).key)
            });
        });
        group.finish();
    }
}

/// `apply`: the life of a record, and what most copies meet.
fn store(criterion: &mut Criterion) {
    let (window, now) = (Duration::from_hours(1), StoreTime(1));
    let (first, second) = (Owner(1), Owner(2));
    let claim = Operation::Claim { lease: Duration::from_secs(10), window };
    let settle = Operation::Settle { verdict: Verdict::Delivered(200), digest: Digest(7), window };
    let live = |owner| {
        let mut record = Record::Vacant;
        let won = apply(&mut record, owner, black_box(&claim), now);
        let done = apply(&mut record, owner, black_box(&settle), now);
        (record, won, done)
    };
    let (settled, won, done) = live(first);
    assert!(matches!((won, done), (Reply::Won { .. }, Reply::Done)), "{won:?} {done:?}");
    criterion.bench_function("apply/claim and settle", |bencher| {
        bencher.iter(|| live(black_box(first)));
    });
    criterion.bench_function("apply/duplicate", |bencher| {
        bencher.iter_batched_ref(
            || settled,
            |record| apply(record, second, black_box(&claim), now),
            BatchSize::SmallInput,
        );
    });
}

/// `step`: a fresh event from its arrival to its answer, with a store and a backend that never fail.
fn exchange(criterion: &mut Criterion) {
    let terms = Terms {
        lease: Duration::from_secs(10),
        guard: Duration::from_secs(2),
        join_wait: Duration::from_secs(5),
        window: Duration::from_hours(1),
        on_ambiguous: OnAmbiguous::Retry,
        on_store_error: OnStoreError::Local,
    };
    let delivered = Conclusion::Forwarded(Outcome::Delivered(200));
    assert_eq!(fresh(terms).conclusion, delivered, "nothing failed");
    criterion.bench_function("step/fresh event", |bencher| {
        bencher.iter(|| fresh(black_box(terms)));
    });
}

fn fresh(terms: Terms) -> Answer {
    let now = Monotonic::from_origin(Duration::from_secs(1));
    let (owner, mut record) = (Owner(1), Record::Vacant);
    let (mut exchange, mut effect) = Exchange::start(terms, owner, Digest(7), now);
    for _ in 0..STEPS_MAX {
        let input = match effect {
            Effect::Store(_, operation) => {
                Input::Replied(apply(&mut record, owner, &operation, StoreTime(1)))
            }
            Effect::Forward { .. } => Input::Forwarded(Outcome::Delivered(200)),
            Effect::Wait(_) => Input::Woke,
            Effect::Answer(answer) => return answer,
        };
        effect = exchange.step(input, now);
    }
    panic!("no answer after {STEPS_MAX} steps: {effect:?}");
}
