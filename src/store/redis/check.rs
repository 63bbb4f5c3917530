//! What is asked of the server when the gateway starts.

use std::time::Duration;

use redis::{FromRedisValue, Value};

use super::wire::Wire;
use super::{PROBE, Redis, Servers};
use crate::clock;
use crate::store::StoreError;

/// The oldest version that the scripts were written for.
const VERSION_MIN: (u32, u32) = (6, 2);

/// Leases run on the server's clock alone; but two clocks that differ by more say that one of them is wrong, and
/// signatures are checked against ours.
const CLOCK_OFFSET_MAX: Duration = Duration::from_secs(1);

impl Redis {
    /// See [`Store::check`](crate::store::Store::check).
    pub async fn check(&self) -> Result<Vec<String>, StoreError> {
        let cluster = match &self.servers {
            Servers::One(node) => return self.check_server(&node.wire, PROBE).await,
            Servers::Cluster(cluster) => cluster,
        };
        let mut warnings = Vec::new();
        for member in cluster.members().await? {
            let Some(tag) = cluster.tag_of(&member) else { continue };
            let found = self.check_server(&member.node.wire, &tag).await?;
            warnings
                .extend(found.into_iter().map(|warning| format!("{}: {warning}", member.address)));
        }
        Ok(warnings)
    }

    async fn check_server(&self, wire: &Wire, tag: &str) -> Result<Vec<String>, StoreError> {
        ask(wire, redis::cmd("PING")).await?;
        self.probe(tag).await?;
        // The script needs it of a first lease alone, which the probe's record is none of.
        ask(wire, redis::cmd("PTTL").arg(self.probed(tag)).take()).await?;
        let mut warnings = Vec::new();
        warnings.extend(check_clock(wire).await?);
        match ask(wire, redis::cmd("INFO")).await {
            Ok(info) => warnings.extend(check_info(&text(&info)?)?),
            Err(StoreError::Permission(_)) => warnings.push(
                "the user may not run INFO: the version and the eviction policy were not checked (hint: +info)"
                    .to_owned(),
            ),
            Err(error) => return Err(error),
        }
        Ok(warnings)
    }
}

async fn check_clock(wire: &Wire) -> Result<Option<String>, StoreError> {
    let before = clock::unix().since_epoch();
    let answer = ask(wire, redis::cmd("TIME")).await?;
    let after = clock::unix().since_epoch();
    let theirs = time(&answer)?;
    // Read somewhere between our two readings: only what lies outside them is certain.
    let offset = before.saturating_sub(theirs).max(theirs.saturating_sub(after));
    Ok((offset > CLOCK_OFFSET_MAX).then(|| {
        format!(
            "the server's clock is {:.1} s off ours (hint: synchronise both; LiveKit's signatures depend on ours)",
            offset.as_secs_f64()
        )
    }))
}

async fn ask(wire: &Wire, command: redis::Cmd) -> Result<Value, StoreError> {
    let asked = wire.ask(async |link| command.query_async(link.connection()).await).await;
    asked.map(|(answer, _)| answer)
}

/// Fails if the server is too old; warns if it may evict records.
fn check_info(info: &str) -> Result<Option<String>, StoreError> {
    let version = field(info, "redis_version").unwrap_or_default();
    let parsed = version.split_once('.').and_then(|(major, rest)| {
        let minor = rest.split('.').next()?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    if parsed.is_none_or(|version: (u32, u32)| version < VERSION_MIN) {
        return Err(StoreError::Unsupported(format!("version {version:?} is not 6.2 or newer")));
    }
    let policy = field(info, "maxmemory_policy").unwrap_or("unknown");
    let is_limited = field(info, "maxmemory").is_some_and(|bytes| bytes != "0");
    Ok((is_limited && policy != "noeviction").then(|| {
        format!(
            "maxmemory-policy is {policy}: under pressure the server may evict records, and each costs a copy \
             (hint: noeviction)"
        )
    }))
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn text(value: &Value) -> Result<String, StoreError> {
    String::from_redis_value_ref(value)
        .map_err(|error| StoreError::Unexpected(format!("{error} to INFO")))
}

fn time(value: &Value) -> Result<Duration, StoreError> {
    let (seconds, micros) = <(u64, u32)>::from_redis_value_ref(value)
        .map_err(|error| StoreError::Unexpected(format!("{error} to TIME")))?;
    Ok(Duration::from_secs(seconds) + Duration::from_micros(u64::from(micros)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_server_is_refused_and_a_new_one_is_not() {
        for old in ["2.8.24", "5.0.14", "6.0.16", "x", ""] {
            let error = check_info(&format!("# Server\r\nredis_version:{old}\r\n")).expect_err(old);
            assert!(error.is_misconfigured(), "{old}: {error}");
        }
        for new in ["6.2.0", "6.2", "7.0.15", "8.0.0", "10.1.2"] {
            assert_eq!(
                check_info(&format!("# Server\r\nredis_version:{new}\r\n")).expect(new),
                None
            );
        }
    }

    #[test]
    fn an_eviction_policy_matters_only_with_a_limit() {
        let info = |bytes: u64, policy: &str| {
            format!(
                "redis_version:7.0.15\r\nmaxmemory:{bytes}\r\nmaxmemory_human:0B\r\nmaxmemory_policy:{policy}\r\n"
            )
        };
        assert_eq!(check_info(&info(0, "allkeys-lru")).expect("valid"), None);
        assert_eq!(check_info(&info(1000, "noeviction")).expect("valid"), None);
        let warning = check_info(&info(1000, "allkeys-lru")).expect("valid").expect("a warning");
        assert!(
            warning.contains("allkeys-lru") && warning.contains("hint: noeviction"),
            "{warning}"
        );
    }
}
