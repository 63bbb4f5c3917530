//! One gateway with a real Redis and a backend that takes everything, and what one request did to them.

use std::fmt::Debug;
use std::time::Duration;

use serde::Deserialize;

use crate::support::backend::{Action, Backend, Recorded};
use crate::support::gateway::Gateway;
use crate::support::raw::{self, Answered};
use crate::support::redis::{RedisServer, until};
use crate::support::sender::{Sender, Signed};

/// What a case expects.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Effect {
    /// The answer's status.
    pub(super) status: u16,
    /// `reason` in the log; for what never became a webhook there is no line.
    pub(super) reason: Option<String>,
    /// Requests that reached the backend.
    pub(super) backend: u64,
    /// Commands that reached Redis.
    pub(super) store: u64,
}

/// Gateway, Redis, backend.
pub(super) struct Stage {
    redis: RedisServer,
    pub(super) backend: Backend,
    pub(super) gateway: Gateway,
    sender: Sender,
    /// Requests at the backend and commands at Redis, when they were last counted.
    sums: (u64, u64),
    differences: Vec<String>,
}

impl Stage {
    /// With `more` of a configuration. `/webhook` takes the default tenant's webhooks, `/both` everybody's.
    pub(super) async fn start(more: &str) -> Self {
        let redis = RedisServer::start().await;
        let backend = Backend::always(Action::status(200));
        let url = backend.url();
        let configuration = format!(
            "tls.enabled = false\nshutdown.drain_delay = \"0s\"\nstore.kind = \"redis\"\n\
             store.redis.url = \"{}\"\nstore.redis.operation_timeout = \"1s\"\n\
             [[route]]\npath = \"/webhook\"\nbackend = \"{url}/hook\"\ntenants = [\"default\"]\n\
             [[route]]\npath = \"/both\"\nbackend = \"{url}/hook\"\n{more}",
            redis.url()
        );
        let gateway = Gateway::start(&configuration);
        let sender = Sender::to(&gateway.url("/webhook"));
        let (sums, differences) = ((0, 0), Vec::new());
        let mut stage = Self { redis, backend, gateway, sender, sums, differences };
        // Opens the connection to Redis and loads the scripts, so that neither counts below.
        for number in 0..2 {
            let body = format!(r#"{{"event":"room_started","room":{{"sid":"RM_{number}"}}}}"#);
            assert_eq!(stage.sender.post(&Signed::new(body)).await.status, 200);
        }
        stage.sums = stage.counted().await;
        stage
    }

    /// Requests at the backend, and commands at Redis, so far.
    async fn counted(&self) -> (u64, u64) {
        let commands = self.redis.store_commands().await;
        (self.backend.requests().len() as u64, commands)
    }

    /// Sends `request` (whose `X-Request-Id` is `name`), and holds what comes of it against `expected`.
    pub(super) async fn send(
        &mut self,
        name: &str,
        request: &[u8],
        body: &[u8],
        expected: &Effect,
    ) -> Answered {
        let told = raw::send(self.gateway.address(), request).await;
        self.same(name, "status", &told.status, &expected.status);
        let mut reason = None;
        if expected.reason.is_some() && told.status == expected.status {
            reason = self.line(name).await["reason"].as_str().map(str::to_owned);
        }
        self.same(name, "reason", &reason, &expected.reason);
        self.did(name, expected.backend, expected.store).await;
        if expected.backend > 0 {
            self.same(name, "same body", &(self.last().body == body), &true);
        }
        told
    }

    /// Notes a difference; all of them are told at the end.
    pub(super) fn same<T: PartialEq + Debug>(
        &mut self,
        name: &str,
        what: &str,
        is: &T,
        should: &T,
    ) {
        if is != should {
            self.differences.push(format!("{name}: {what} is {is:?}, and should be {should:?}"));
        }
    }

    /// The one line of the webhook `name`; there may be others about it.
    pub(super) async fn line(&self, name: &str) -> serde_json::Value {
        let part = format!("\"request_id\":\"{name}\"");
        let tells =
            |line: &String| line.contains(&part) && line.contains("\"message\":\"webhook\"");
        let mut found = None;
        until("the log tells of it", async || {
            found = self.gateway.log().into_iter().find(tells);
            found.is_some()
        })
        .await;
        serde_json::from_str(&found.unwrap()).unwrap()
    }

    /// The last request at the backend.
    pub(super) fn last(&self) -> Recorded {
        self.backend.requests().pop().expect("there was a request")
    }

    /// Holds that the backend and Redis were asked so often since this was last asked, and no more.
    async fn did(&mut self, name: &str, backend: u64, store: u64) {
        let (before, commands) = self.sums;
        let expected = (before + backend, commands + store);
        let mut counted = self.counted().await;
        // What an answer does not wait for may come a little later; too much never goes away again.
        for _ in 0..1_000 {
            if counted.0 >= expected.0 && counted.1 >= expected.1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
            counted = self.counted().await;
        }
        let since = (counted.0 - before, counted.1 - commands);
        self.same(name, "(requests at the backend, commands at Redis)", &since, &(backend, store));
        self.sums = counted;
    }

    /// Holds that nobody remembers `body`: signed as it should be, it is forwarded as a first copy.
    pub(super) async fn still_new(&mut self, name: &str, body: &[u8]) {
        let told = self.sender.post(&Signed::new(body.to_vec())).await;
        self.same(name, "the next copy", &(told.status, told.word.as_str()), &(200, "forwarded"));
        let last = self.last();
        self.same(name, "its attempt", &last.one("oncehook-attempt"), &Some("1"));
        self.did(name, 1, 2).await;
    }

    /// Holds that nothing came after all, and tells what was not as it should be.
    pub(super) async fn end(mut self) {
        self.did("the end", 0, 0).await;
        assert!(
            self.differences.is_empty(),
            "{} differences:\n{}",
            self.differences.len(),
            self.differences.join("\n")
        );
    }
}
