//! Shadow mode: every copy is forwarded, and what would have been collapsed is only counted and logged.

use crate::claim::exchange::{Conclusion, Input, Outcome, Place};
use crate::claim::record::{Ending, Operation, Reply};
use crate::claim::{Owner, Verdict};
use crate::clock::{self, Monotonic};

use super::perform::Attempt;
use super::{Concluded, Copy, Dispatch, owner};

impl Dispatch {
    /// Claims `copy` to see what would become of it, forwards it whatever the answer, and records the outcome as if the
    /// claim had counted. A store that fails changes nothing: a shadow never stands in the way.
    pub(super) async fn shadow(&self, copy: &Copy) -> Concluded {
        let began = clock::monotonic();
        let deadline = began.plus(copy.route.upstream_timeout);
        let owner = owner::fresh(began);
        let won = match owner {
            Some(owner) => self.claim_in_shadow(copy, owner, began).await,
            None => None,
        };
        let attempt = won.unwrap_or(Attempt { number: 1, possible_duplicate: false });
        let (outcome, ended) = self.forward(copy, attempt, deadline, clock::monotonic()).await;
        if let (Some(owner), Some(_)) = (owner, won) {
            // The reply changes nothing, and a failure is counted by `ask`.
            self.ask((Place::Shared, record_of(outcome, copy)), copy.key, owner, ended).await;
        }
        let Attempt { number: attempt, possible_duplicate } = attempt;
        let conclusion = Conclusion::Forwarded(outcome);
        Concluded { attempt, possible_duplicate, ..Concluded::of(conclusion) }
    }

    /// The attempt, if this copy would have been forwarded.
    async fn claim_in_shadow(
        &self,
        copy: &Copy,
        owner: Owner,
        began: Monotonic,
    ) -> Option<Attempt> {
        let claim = Operation::Claim { lease: self.options().lease, window: copy.window };
        let said = self.ask((Place::Shared, claim), copy.key, owner, began).await;
        let (Input::Replied(reply), _) = said else { return None };
        if let Reply::Won { attempt: number, possible_duplicate } = reply {
            return Some(Attempt { number, possible_duplicate });
        }
        self.metrics.would_collapse();
        tracing::info!(
            route = copy.route.name.as_str(), key = %copy.key, request_id = %copy.request_id, found = ?reply,
            "shadow: this copy would have been collapsed"
        );
        None
    }
}

/// What an exchange would have recorded of `outcome`.
const fn record_of(outcome: Outcome, copy: &Copy) -> Operation {
    let (digest, window) = (copy.digest, copy.window);
    let pause = std::time::Duration::ZERO;
    match outcome {
        Outcome::Delivered(status) => {
            Operation::Settle { verdict: Verdict::Delivered(status), digest, window }
        }
        Outcome::Refused(status) => {
            Operation::Settle { verdict: Verdict::Refused(status), digest, window }
        }
        Outcome::Misconfigured(_)
        | Outcome::Overloaded { .. }
        | Outcome::Failed(_)
        | Outcome::Unreached => Operation::Release { ending: Ending::Failed, pause, window },
        Outcome::Ambiguous => Operation::Release { ending: Ending::Ambiguous, pause, window },
    }
}
