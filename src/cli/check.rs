//! `oncehook check`: whether a configuration is right, as `nginx -t`, without starting anything.
//!
//! What is right is left to `config`; whether backends and stores answer is found out by `run`.

use std::path::PathBuf;

use crate::cli::Stdio;
use crate::cli::exit::{Ending, Exit, Failure};
use crate::config::{self, LoadError, Overrides, Sources};

const AFTER_HELP: &str = "\
All errors are told at once, each with its file, line and column, or with the
variable it comes from. Exit codes: 0 valid, 66 the file is not there, 78 wrong.

Examples:
  oncehook check --config /etc/oncehook/oncehook.toml
  oncehook check --config oncehook.toml --show
      also print every setting in force, and where it comes from";

/// Check the configuration
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Configuration file, TOML [default: the environment alone]
    #[arg(long, value_name = "FILE", env = "ONCEHOOK_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Print the settings in force as TOML, secrets replaced
    #[arg(long)]
    show: bool,
}

/// Checks the configuration that `run` would take.
pub fn run(args: &Args, stdio: &mut Stdio<'_>) -> Ending {
    let sources = Sources {
        file: args.config.clone(),
        environment: config::environment(),
        overrides: Overrides::default(),
    };
    let name = match &args.config {
        Some(file) => file.display().to_string(),
        None => "of the environment".to_owned(),
    };
    let config = match config::load(&sources) {
        Ok(config) => config,
        Err(LoadError::Unreadable { file, source }) => return Err(Failure::reading(&file, source)),
        Err(LoadError::Invalid(problems)) => {
            writeln!(stdio.talk, "{problems}\n\nconfiguration {name} is not valid")?;
            return Ok(Exit::Config);
        }
    };
    for warning in &config.warnings {
        writeln!(stdio.talk, "{warning}")?;
    }
    if args.show {
        write!(stdio.out, "{}", config::show(&config))?;
    }
    writeln!(stdio.talk, "configuration {name} is valid")?;
    Ok(Exit::Success)
}
