//! `goms up`: a whole cluster in one process, and a team's own services beside it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use super::console::Console;
use super::roles::{Beside, Role};
use super::service::Served;
use super::{AppError, output, ports, trace_consumer};
use crate::config::{Config, LogFormat, UpApp, UpService};
use crate::registry::{Backend, NodeId};
use crate::service::{PORT_PLACEHOLDER, ProgramSettings, Template};

/// The demo service.
pub const SERVICE: &str = "user";
/// Its nodes.
const USER_NODES: usize = 3;

/// What `goms up` runs.
///
/// # Errors
/// When no port is free, or a service cannot be found by what registry was chosen.
pub fn roles(config: &Config, console: &Console) -> Result<Vec<Role>, AppError> {
    let mut roles = vec![Role::TraceConsumer];
    if config.up.with_demo() {
        roles.extend((1..=USER_NODES).map(Role::UpUser));
        console.expect("user#1");
    }
    for (name, service) in &config.up.services {
        if !config.gateway.services.contains_key(name) && config.gateway.micro.is_none() {
            eprintln!(
                "goms: note: no action and no route of the config leads to `{name}`, so the gateway has no path to it"
            );
        }
        for number in 1..=service.instances {
            roles.push(instance(config, console, name, service, number)?);
        }
    }
    roles.push(Role::Gateway);
    console.expect("gateway");
    Ok(roles)
}

fn instance(
    config: &Config,
    console: &Console,
    service: &str,
    settings: &UpService,
    number: usize,
) -> Result<Role, AppError> {
    let name = format!("{service}#{number}");
    // held until the program is started, so that nobody else gets it
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(AppError::Start)?;
    let port = ports::port_of(&held)?;
    let url = match &settings.app {
        UpApp::Node => format!("http://127.0.0.1:{PORT_PLACEHOLDER}"),
        UpApp::Url(url) => url.clone(),
    };
    let mut env = Vec::new();
    if settings.app.takes_port() {
        env.push(("PORT".to_owned(), PORT_PLACEHOLDER.to_owned()));
    }
    if settings.app == UpApp::Node {
        env.extend(of_node(config, service)?);
    }
    env.extend(settings.env.iter().cloned());
    let template = Template { url, command: settings.command.clone(), env };
    let program = ProgramSettings::of_template(template, port);
    let mut program = program.map_err(|error| AppError::Part(Box::new(error)))?;
    if !settings.app.takes_port() || !settings.beside {
        program.template = None; // it has the one port
    }
    if settings.app == UpApp::Node {
        // it leaves, is noticed and drains before it ends
        program.stop_timeout += config.node.drain_timeout;
    }
    program.dir = Some(settings.dir.clone());
    program.lines = Some(console.lines_of(&name));
    program.restart = settings.restart;
    program.is_watched = !settings.watch.is_empty();
    program.start_timeout = settings.start_timeout;
    let (service, watched) = (service.to_owned(), settings.watch.clone());
    Ok(match settings.app {
        UpApp::Node => Role::UpNode(Box::new(Beside { service, name, settings: program, watched, port: held })),
        UpApp::Url(_) => Role::UpProgram {
            name,
            served: Box::new(Served::Program { name: service, settings: program, watched, openapi: None }),
            port: settings.app.takes_port().then_some(held),
        },
    })
}

/// What tells a program that is a node itself where it listens and where the others are.
fn of_node(config: &Config, service: &str) -> Result<Vec<(String, String)>, AppError> {
    if matches!(config.registry.backend, Backend::Memory) {
        return Err(AppError::Usage(format!(
            "`{service}` is a process of its own and cannot be found through `--registry memory`; leave it out"
        )));
    }
    let mut variables = vec![
        ("GOMS_HTTP_PORT", PORT_PLACEHOLDER.to_owned()),
        ("GOMS_RPC_PORT", "0".to_owned()),
        ("GOMS_ADMIN_PORT", "0".to_owned()),
        ("GOMS_BIND", Ipv4Addr::LOCALHOST.to_string()),
        ("GOMS_REGISTRY", config.registry.backend.kind().to_owned()),
        ("GOMS_NAMESPACE", config.registry.namespace.clone()),
        ("GOMS_DATA_DIR", absolute(&config.data_dir)),
        ("GOMS_RUNTIME_DIR", absolute(&config.runtime_dir)),
    ];
    if let Some(file) = &config.file {
        variables.push(("GOMS_CONFIG", absolute(file)));
    }
    if config.log.format == LogFormat::Json {
        variables.push(("GOMS_LOG_FORMAT", "json".to_owned()));
    }
    Ok(variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The program may run in another folder.
fn absolute(path: &std::path::Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// Tells a newcomer where everything is and what to try.
pub fn greet(
    config: &Config,
    nodes: &[&NodeId],
    https: Option<SocketAddr>,
    spans: &[(&str, String)],
    admin: SocketAddr,
) {
    let of = |service: &str| -> Vec<String> {
        let addresses = nodes.iter().filter(|id| id.service == service).filter_map(|id| id.http.socket());
        addresses.map(|address| format!("http://{address}")).collect()
    };
    let Some(gateway) = of(super::gateway::SERVICE).first().cloned() else { return };
    let mut lines = vec![("gateway".to_owned(), gateway.clone())];
    lines.extend(https.map(|address| ("gateway, TLS".to_owned(), format!("https://{address}"))));
    lines.push(("cluster".to_owned(), format!("{gateway}/cluster")));
    if config.up.with_demo() {
        lines.push(("user nodes".to_owned(), of(SERVICE).join(" ")));
    }
    for (name, service) in &config.up.services {
        let at = if service.app == UpApp::Node { service.command.join(" ") } else { of(name).join(" ") };
        lines.push((name.clone(), at));
    }
    lines.push(("trace consumer".to_owned(), of(trace_consumer::SERVICE).join(" ")));
    lines.extend(spans.iter().map(|(protocol, url)| (format!("{protocol} spans"), url.clone())));
    lines.push(("dashboard".to_owned(), format!("http://{admin}/  (also /healthz /readyz /metrics)")));
    let lines: String = lines.iter().map(|(name, at)| format!("  {name:<16}{at}\n")).collect();
    output::text(&format!(
        "
{lines}
Try it:
  {}
and then, from another terminal:
  goms trace search
  goms cluster status

Ctrl-C ends it.

",
        example(config, &gateway)
    ));
}

/// A request that leads to the demo, or to an action of the team's first service that has one.
fn example(config: &Config, gateway: &str) -> String {
    if config.up.with_demo() {
        return format!("curl -i '{gateway}/api/user/login?a=1&b=3' -d 'username=test&password=test'");
    }
    let mut names = config.up.services.iter().map(|(name, _)| name);
    let first = names.find_map(|name| {
        let action = config.gateway.services.get(name)?.actions.keys().next()?;
        Some(format!("/api/{name}/{action}"))
    });
    format!("curl -i '{gateway}{}'", first.unwrap_or_else(|| "/cluster".to_owned()))
}
