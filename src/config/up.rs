//! `up`: what `goms up` runs besides a gateway and a trace consumer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_yaml::Mapping;

use super::decode::{Decoder, Field, boolean, number, word};
use super::names::service_name;
use super::print::{REDACTED, duration, named, put, texts};
use super::units::parse_positive_duration;
use crate::service::{PORT_PLACEHOLDER, ProgramUrl, Restart};

/// More instances of one service a machine for development has no use for.
const MOST_INSTANCES: usize = 64;
const DEFAULT_START: Duration = Duration::from_secs(30);
pub(super) const RESTARTS: [(&str, Restart); 3] =
    [("never", Restart::Never), ("on-failure", Restart::OnFailure), ("always", Restart::Always)];

/// What `goms up` runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpSettings {
    /// A team's own services by name, in the order of the file.
    pub services: Vec<(String, UpService)>,
    /// Whether the demo nodes `user` run; `None`: where no service is named.
    pub demo: Option<bool>,
}

impl UpSettings {
    /// Whether the demo nodes run.
    #[must_use]
    pub fn with_demo(&self) -> bool {
        self.demo.unwrap_or(self.services.is_empty())
    }
}

/// A service of a team, in any language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpService {
    /// Where an instance listens.
    pub app: UpApp,
    /// The command and its arguments, in which `{port}` stands for the instance's port; empty: somebody else runs it.
    pub command: Vec<String>,
    /// Where it runs.
    pub dir: PathBuf,
    /// What its environment has besides goms's own and `PORT`.
    pub env: Vec<(String, String)>,
    /// How many run, at least 1.
    pub instances: usize,
    /// Files and folders whose change restarts it.
    pub watch: Vec<PathBuf>,
    /// Whether, of one instance, the new one starts while the one before runs. Else that ends first, and requests wait.
    pub beside: bool,
    /// When it is started again after an end of its own.
    pub restart: Restart,
    /// How long an instance may take to listen.
    pub start_timeout: Duration,
}

/// Where an instance of a service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpApp {
    /// It is a node itself (a [`Service`](crate::Service)): told its port, it registers on its own.
    Node,
    /// goms stands in front of it; the text is an address once `{port}` is replaced.
    Url(String),
}

impl UpApp {
    /// Whether each instance is given a port of its own.
    #[must_use]
    pub fn takes_port(&self) -> bool {
        match self {
            Self::Node => true,
            Self::Url(url) => url.contains(PORT_PLACEHOLDER),
        }
    }
}

/// Reads it; a relative `dir` begins at the folder of the file, a relative `watch` at `dir`.
pub(super) fn read(decoder: &mut Decoder, field: &Field<'_>) -> UpSettings {
    let table = decoder.table(field, &["services", "demo"]);
    let base = decoder.folder();
    let mut services = Vec::new();
    if let Some(field) = table.get("services") {
        let named = decoder.names(&field, service_name);
        for (name, field) in named.iter() {
            services.extend(service(decoder, field, &base).map(|service| (name.to_owned(), service)));
        }
    }
    UpSettings { services, demo: table.get("demo").and_then(|field| decoder.read(&field, boolean)) }
}

fn service(decoder: &mut Decoder, field: &Field<'_>, base: &Path) -> Option<UpService> {
    let known = ["app", "command", "dir", "env", "instances", "watch", "beside", "restart", "startTimeout"];
    let table = decoder.table(field, &known);
    let app = match table.get("app") {
        Some(field) => decoder.read(&field, app),
        None => Some(UpApp::Url(format!("http://127.0.0.1:{PORT_PLACEHOLDER}"))),
    };
    let command = table.get("command").map(|field| command(decoder, &field)).unwrap_or_default();
    let dir = table.get("dir").and_then(|field| decoder.some_text(&field));
    let dir = dir.map_or_else(|| base.to_owned(), |dir| base.join(dir));
    let watch = table.get("watch").map(|field| decoder.list(&field)).unwrap_or_default();
    let watch = watch.iter().filter_map(|field| decoder.some_text(field)).map(|path| dir.join(path)).collect();
    let env = table.get("env").map(|field| environment(decoder, &field)).unwrap_or_default();
    let instances = table.get("instances").and_then(|field| decoder.read_at(&field, number(1, MOST_INSTANCES)));
    let beside = table.get("beside").and_then(|field| decoder.read(&field, boolean));
    let restart = table.get("restart").and_then(|field| decoder.read(&field, word("word", &RESTARTS)));
    let start_timeout = table.get("startTimeout").and_then(|field| decoder.read(&field, parse_positive_duration));
    let app = app?;
    if command.is_empty() {
        if app.takes_port() {
            decoder.fault(&field.place, "needs a `command`; or an `app` without `{port}`, that somebody else runs");
        }
        for key in ["dir", "env", "watch", "restart", "startTimeout"] {
            if let Some(field) = table.get(key) {
                decoder.fault(&field.place, format!("`{key}` is for a program that goms starts; give its `command`"));
            }
        }
    }
    if command.is_empty() && beside.is_some() {
        decoder.fault(&field.place, "`beside` is for a program that goms starts; give its `command`");
    }
    if let Some(at) = instances.as_ref().filter(|at| at.value > 1 && !app.takes_port()) {
        let message = "several instances need a port each: write `app: \"http://127.0.0.1:{port}\"`, and have the program listen at `{port}` of its command or at PORT of its environment";
        decoder.fault(&at.place, message);
    }
    Some(UpService {
        app,
        command,
        dir,
        env,
        instances: instances.map_or(1, |at| at.value),
        watch,
        beside: beside.unwrap_or(true),
        restart: restart.unwrap_or_default(),
        start_timeout: start_timeout.unwrap_or(DEFAULT_START),
    })
}

fn app(text: &str) -> Result<UpApp, String> {
    if text == "goms" {
        return Ok(UpApp::Node);
    }
    // any port will do to see whether the rest is an address
    let parsed = text.replace(PORT_PLACEHOLDER, "1").parse::<ProgramUrl>();
    parsed.map(|_| UpApp::Url(text.to_owned())).map_err(|error| error.to_string())
}

/// A list of words, or one text that is divided at its spaces.
fn command(decoder: &mut Decoder, field: &Field<'_>) -> Vec<String> {
    match field.is_scalar() {
        true => {
            let text = decoder.some_text(field).unwrap_or_default();
            if text.contains(['\'', '"', '|', '&', ';', '<', '>', '$', '`', '*']) {
                decoder.fault(&field.place, "is not read by a shell; write a list, for example `[sh, -c, \"…\"]`");
            }
            text.split_whitespace().map(str::to_owned).collect()
        }
        false => decoder.list(field).iter().filter_map(|word| decoder.read(word, |text| Ok(text.to_owned()))).collect(),
    }
}

fn environment(decoder: &mut Decoder, field: &Field<'_>) -> Vec<(String, String)> {
    let table = decoder.names(field, |name| match name.contains(['=', '\0']) || name.is_empty() {
        true => Err("a variable's name is not empty and has no `=`".to_owned()),
        false => Ok(name.to_owned()),
    });
    let value = |(name, field): (&str, &Field<'_>)| {
        decoder.read(field, |text| Ok(text.to_owned())).map(|value| (name.to_owned(), value))
    };
    table.iter().filter_map(value).collect()
}

/// It as YAML that could be read again; the values of variables are secrets.
pub(super) fn shown(settings: &UpSettings) -> Mapping {
    let mut up = Mapping::new();
    put(&mut up, "services", named(settings.services.iter().map(|(name, service)| (name, shown_service(service)))));
    put(&mut up, "demo", settings.with_demo());
    up
}

fn shown_service(service: &UpService) -> Mapping {
    let mut shown = Mapping::new();
    put(
        &mut shown,
        "app",
        match &service.app {
            UpApp::Node => "goms",
            UpApp::Url(url) => url.as_str(),
        },
    );
    put(&mut shown, "instances", service.instances);
    if !service.command.is_empty() {
        put(&mut shown, "command", texts(service.command.iter()));
        if !service.dir.as_os_str().is_empty() {
            put(&mut shown, "dir", service.dir.display().to_string());
        }
        let mut env = Mapping::new();
        service.env.iter().for_each(|(name, _)| put(&mut env, name, REDACTED));
        put(&mut shown, "env", env);
        put(
            &mut shown,
            "watch",
            texts(service.watch.iter().map(|path| path.strip_prefix(&service.dir).unwrap_or(path).display())),
        );
        put(&mut shown, "beside", service.beside);
        let word = RESTARTS.iter().find(|(_, restart)| *restart == service.restart);
        put(&mut shown, "restart", word.map_or("on-failure", |(word, _)| *word));
        put(&mut shown, "startTimeout", duration(service.start_timeout));
    }
    shown
}

#[cfg(test)]
mod tests {
    use crate::config::{CommonFlags, Config, NodeFlags, UpApp};

    fn up(text: &str) -> Config {
        let text = format!("services: {{shop: {{a: /a}}}}\n{text}");
        Config::parse("team/goms.yml", &text, &CommonFlags::default(), &NodeFlags::default()).expect(&text)
    }

    #[test]
    fn a_command_alone_is_enough() {
        let config = up("up: { services: { shop: { command: python3 shop.py } } }");
        let (name, shop) = &config.up.services[0];
        assert_eq!((name.as_str(), shop.instances, shop.beside), ("shop", 1, true));
        assert_eq!(shop.app, UpApp::Url("http://127.0.0.1:{port}".to_owned()));
        assert_eq!(shop.command, ["python3", "shop.py"]);
        assert_eq!(shop.dir.to_str(), Some("team"));
        assert!(!config.up.with_demo() && up("").up.with_demo() && up("up: {demo: true}").up.with_demo());
        assert!(!up("up: {demo: false}").up.with_demo());
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let text = "up: { services: { shop: { command: [a, b c], dir: d, env: {A: 1}, watch: [src], instances: 3, beside: false, restart: never } } }";
        let printed = up(text).to_yaml().expect("YAML");
        assert!(printed.contains("A: redacted") && !printed.contains("A: 1"), "{printed}");
        let again = Config::parse("x.yml", &printed, &CommonFlags::default(), &NodeFlags::default()).expect("good");
        assert_eq!(again.up.services[0].1.command, ["a", "b c"]);
        assert_eq!(again.up.services[0].1.dir.to_str(), Some("team/d"));
        assert!(!again.up.services[0].1.beside);
        assert_eq!(again.up.services[0].1.watch, [std::path::PathBuf::from("team/d/src")]);
    }
}
