//! What the operating system knows of this process, read at each scrape. Where there is no `/proc`, it is left out.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::clock::UnixTime;

/// The process metrics that every Prometheus client library has, under their customary names
/// (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>).
#[derive(Debug)]
pub(super) struct Process {
    started: UnixTime,
}

impl Process {
    pub(super) const fn started(started: UnixTime) -> Self {
        Self { started }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let started = self.started.since_epoch().as_secs_f64();
        one(
            &mut encoder,
            "process_start_time",
            "When the process started, since the epoch.",
            Some(&Unit::Seconds),
            started,
        )?;
        if let Some(bytes) = resident_bytes() {
            one(
                &mut encoder,
                "process_resident_memory",
                "Resident memory.",
                Some(&Unit::Bytes),
                bytes,
            )?;
        }
        if let Some(open) = open_descriptors() {
            one(&mut encoder, "process_open_fds", "Open file descriptors.", None, open)?;
        }
        Ok(())
    }
}

fn one<N>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: N,
) -> fmt::Result
where
    ConstGauge<N>: EncodeMetric,
{
    let gauge = ConstGauge::new(value);
    let encoder = encoder.encode_descriptor(name, help, unit, gauge.metric_type())?;
    gauge.encode(encoder)
}

/// `VmRSS` in /proc/self/status, which is in kB whatever the size of a page.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kilobytes.checked_mul(1024)
}

fn open_descriptors() -> Option<u64> {
    let counted = fs::read_dir("/proc/self/fd").ok()?.count();
    // The directory that is being read is itself one of them.
    u64::try_from(counted.saturating_sub(1)).ok()
}
