//! `oncehook version`: which oncehook this is, as far as the build knows.

use std::env::consts;

use serde::Serialize;

use crate::cli::Stdio;
use crate::cli::exit::{Ending, Exit};
use crate::cli::options::Format;

const AFTER_HELP: &str = "\
Examples:
  oncehook version
  oncehook version --format json | jq -r .version";

/// Print the version and how it was built
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// How to print it: text, or json, an object a line
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT", hide_possible_values = true)]
    format: Format,
}

#[derive(Serialize)]
struct Build {
    version: &'static str,
    /// Set by whoever builds: `ONCEHOOK_REVISION=$(git rev-parse --short HEAD) cargo build`.
    revision: Option<&'static str>,
    profile: &'static str,
    rust_version_min: &'static str,
    os: &'static str,
    architecture: &'static str,
    tls: &'static str,
    stores: [&'static str; 3],
}

const BUILD: Build = Build {
    version: env!("CARGO_PKG_VERSION"),
    revision: option_env!("ONCEHOOK_REVISION"),
    profile: if cfg!(debug_assertions) { "debug" } else { "release" },
    rust_version_min: env!("CARGO_PKG_RUST_VERSION"),
    os: consts::OS,
    architecture: consts::ARCH,
    tls: "rustls with aws-lc-rs",
    stores: ["memory", "disk", "redis"],
};

/// Prints it.
pub fn run(args: &Args, stdio: &mut Stdio<'_>) -> Ending {
    match args.format {
        Format::Json => Format::json(stdio.out, &BUILD)?,
        Format::Text => {
            writeln!(stdio.out, "oncehook {}", BUILD.version)?;
            writeln!(stdio.out, "revision  {}", BUILD.revision.unwrap_or("unknown"))?;
            writeln!(
                stdio.out,
                "build     {}, rustc {} or newer",
                BUILD.profile, BUILD.rust_version_min
            )?;
            writeln!(stdio.out, "platform  {} {}", BUILD.os, BUILD.architecture)?;
            writeln!(stdio.out, "tls       {}", BUILD.tls)?;
            writeln!(stdio.out, "stores    {}", BUILD.stores.join(", "))?;
        }
    }
    Ok(Exit::Success)
}
