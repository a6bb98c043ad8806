//! THE COMPOSITION ROOT: the only place that picks backends and starts roles.
//!
//! May import: everything.

mod call;
mod check;
mod cluster;
mod console;
mod descriptors;
mod desk;
mod doctor;
mod error;
mod explain;
mod gateway;
mod greeter;
mod logging;
mod methods;
mod new;
mod output;
mod own;
mod ports;
mod process;
mod reload;
mod roles;
mod routes;
mod rpc;
mod running;
mod service;
mod service_manager;
mod supervise;
mod table;
pub mod testing;
mod trace;
mod trace_consumer;
mod up;
mod watch;

pub use error::AppError;

use std::process::ExitCode;
use std::sync::Arc;

use self::console::Console;
use self::reload::Reload;
use self::roles::Role;
use self::service::Served;
use crate::cli::{Cli, Command, CommonFlags, ConfigCommand, NodeFlags, ServiceArgs, ServiceCommand, UpCommand};
use crate::config::Config;
use crate::service::Service;

/// Runs one command of the command line to its end and gives the process's exit code; prints what went wrong.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    finish(dispatch(cli))
}

impl Service {
    /// Runs the service as a node of the cluster until SIGTERM or Ctrl-C, with the flags of `goms service` read from
    /// this program's own command line, and gives the process's exit code; prints what went wrong.
    ///
    /// Blocks; call it from `main`, outside of any runtime.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let args = match ServiceArgs::parse_args(self.name(), self.version_text(), std::env::args_os()) {
            Ok(args) => args,
            Err(error) => return said(&error),
        };
        let load = move || Config::load(&args.common, &args.node);
        finish(load().map_err(AppError::from).and_then(|config| {
            let reload = Reload { load: Arc::new(load), on_hangup: !reload::has_terminal(), only_signs: false };
            start(config, vec![Role::Service(Box::new(Served::Handlers(self)))], Some(reload))
        }))
    }
}

/// Prints what clap says and gives the exit code.
#[must_use]
pub fn said(error: &clap::Error) -> ExitCode {
    // nothing can be done when the terminal is gone
    drop(error.print());
    ExitCode::from(crate::cli::exit_code(error))
}

fn finish(result: Result<(), AppError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.print();
            error.exit_code()
        }
    }
}

fn dispatch(cli: Cli) -> Result<(), AppError> {
    let load = |node: &NodeFlags| Config::load(&cli.common, node).map_err(AppError::from);
    match cli.command {
        Command::Up(command) => {
            let UpCommand { mut args, follow } = *command;
            if follow.is_some() {
                args.node.access_log = Some(true);
            }
            let config = load(&args.node)?.with_intake(&args.intake).with_gateway(&args.gateway)?;
            config.for_gateway()?;
            let common = cli.common.clone();
            let load = move || Config::load(&common, &args.node)?.with_intake(&args.intake).with_gateway(&args.gateway);
            // the terminal's end is the end
            let reload = Reload { load: Arc::new(load), on_hangup: false, only_signs: false };
            let console = Console::start(config.log.format, follow).map_err(AppError::Start)?;
            let roles = up::roles(&config, &console)?;
            let outcome = start_on(Some(&console), config, roles, Some(reload));
            console.flush();
            outcome
        }
        Command::Gateway(args) => {
            let config = load(&args.node)?.with_gateway(&args.gateway)?;
            config.for_gateway()?;
            let common = cli.common.clone();
            let load = move || Config::load(&common, &args.node)?.with_gateway(&args.gateway);
            let reload = Reload { load: Arc::new(load), on_hangup: true, only_signs: true };
            start(config, vec![Role::Gateway], Some(reload))
        }
        Command::TraceConsumer(args) => {
            let config = load(&args.node)?.with_intake(&args.intake);
            let common = cli.common.clone();
            let load = move || Config::load(&common, &args.node).map(|config| config.with_intake(&args.intake));
            let reload = Reload { load: Arc::new(load), on_hangup: !reload::has_terminal(), only_signs: false };
            start(config, vec![Role::TraceConsumer], Some(reload))
        }
        Command::Service(args) => {
            let mut config = load(&args.node)?;
            config.node.service_name.clone_from(&args.registered_name);
            let (common, node, name) = (cli.common.clone(), args.node.clone(), args.registered_name.clone());
            let load = move || {
                let mut config = Config::load(&common, &node)?;
                config.node.service_name.clone_from(&name);
                Ok(config)
            };
            let reload = Reload { load: Arc::new(load), on_hangup: !reload::has_terminal(), only_signs: false };
            let served = served(&config, args)?;
            start(config, vec![Role::Service(Box::new(served))], Some(reload))
        }
        Command::Cluster { command } => {
            let config = load(&NodeFlags::default())?;
            logging::start_quiet(&config.log);
            in_system(cluster::run(&config, command))
        }
        Command::Trace { command } => {
            let config = load(&NodeFlags::default())?;
            logging::start_quiet(&config.log);
            in_system(trace::run(&config, command))
        }
        Command::Config { command: ConfigCommand::Check } => check::config(&load(&NodeFlags::default())?),
        Command::Config { command: ConfigCommand::Print(args) } => {
            check::print(&load(&args.node)?.with_intake(&args.intake).with_gateway(&args.gateway)?)
        }
        Command::Config { command: ConfigCommand::Diff(args) } => {
            let of = |file: &std::path::Path| {
                let common = CommonFlags { config: Some(file.to_owned()), ..cli.common.clone() };
                Config::load(&common, &NodeFlags::default())
            };
            check::diff(&of(&args.old)?, &of(&args.new)?, args.output.json());
            Ok(())
        }
        Command::Config { command: ConfigCommand::Schema } => {
            output::json(&Config::schema());
            Ok(())
        }
        Command::New(args) => new::run(&args),
        Command::Call(args) => {
            let config = load(&NodeFlags::default())?;
            logging::start_quiet(&config.log);
            in_system(call::run(&config, args))
        }
        Command::Rpc { command } => {
            let config = load(&NodeFlags::default())?;
            logging::start_quiet(&config.log);
            in_system(methods::run(&config, command))
        }
        Command::Explain(args) => explain::run(&load(&NodeFlags::default())?, args),
        Command::Doctor(args) => {
            let config = load(&NodeFlags::default())?;
            logging::start_quiet(&config.log);
            in_system(doctor::run(&config, args.output))
        }
        Command::Man { dir } => match dir {
            Some(dir) => crate::cli::write_manual(&dir)
                .map_err(|error| AppError::Unavailable(format!("cannot write to {}: {error}", dir.display()))),
            None => {
                let page = crate::cli::manual().map_err(|error| AppError::Part(Box::new(error)))?;
                output::text(&String::from_utf8_lossy(&page));
                Ok(())
            }
        },
        Command::Completions { shell } => {
            output::text(&String::from_utf8_lossy(&crate::cli::completions(shell)));
            Ok(())
        }
        Command::Healthcheck { admin_addr } => in_system(check::health(&admin_addr)),
    }
}

fn served(config: &Config, args: ServiceCommand) -> Result<Served, AppError> {
    let Some(url) = &args.app else {
        // whose actions are paths is the user's own service, which happens to have the demo's name
        let known = config.gateway.services.get(&args.name);
        let has_paths = known.is_some_and(|known| known.actions.values().any(|action| action.rpc.is_none()));
        return match greeter::tier(&args.name, args.label.as_deref()).filter(|_| !has_paths) {
            Some(tier) => Ok(Served::Handlers(tier)),
            None => Served::demo(config, &args.name),
        };
    };
    let mut command = Vec::new();
    for word in args.program {
        command.push(word.into_string().map_err(|word| AppError::Usage(format!("`{}` is not UTF-8", word.display())))?);
    }
    let restart = match args.restart {
        crate::cli::Restart::Never => crate::service::Restart::Never,
        crate::cli::Restart::OnFailure => crate::service::Restart::OnFailure,
        crate::cli::Restart::Always => crate::service::Restart::Always,
    };
    let mut settings = service::program_settings(url, command, restart)?;
    settings.is_watched = !args.watch.is_empty();
    if settings.is_watched {
        settings.lines = Some(crate::service::Lines::new(output::program));
    }
    if !config.gateway.services.contains_key(&args.name) {
        eprintln!("goms: note: the config has no service `{}`, so a gateway with it has no route there", args.name);
    }
    Ok(Served::Program { name: args.name, settings, watched: args.watch, openapi: args.openapi })
}

fn start(config: Config, roles: Vec<Role>, reload: Option<Reload>) -> Result<(), AppError> {
    start_on(None, config, roles, reload)
}

fn start_on(
    console: Option<&Console>,
    config: Config,
    roles: Vec<Role>,
    reload: Option<Reload>,
) -> Result<(), AppError> {
    logging::start(&config.log, console);
    descriptors::raise_limit();
    in_system(roles::run(config, roles, reload, console))
}

/// Runs a command on this thread; awc needs what actix's system has.
fn in_system(command: impl Future<Output = Result<(), AppError>>) -> Result<(), AppError> {
    actix_web::rt::System::new().block_on(command)
}
