//! Takes over a changed config file while a process runs; a bad one is told and changes nothing. A gateway follows most of it; every
//! process follows the call keys, how much it logs, and which share of requests it traces.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use prometheus::{IntCounterVec, IntGauge};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use super::process::Process;
use super::{AppError, logging, service_manager};
use crate::balance::Balancer;
use crate::call_key::SigningKey;
use crate::config::{Config, ConfigErrors};
use crate::dashboard::Dashboard;
use crate::gateway::Live;
use crate::listener::Tls;
use crate::trace::Recorder;
use crate::upstream::{HealthChecks, Stamp, stamp};

/// Reads the config again, with the flags and variables of the start.
pub type Load = Arc<dyn Fn() -> Result<Config, ConfigErrors> + Send + Sync>;

/// An editor writes in several steps, a deployment tool several files.
const SETTLE: Duration = Duration::from_millis(200);
/// A config that was refused is tried again after so long, then each time after twice as long up to the other, as a file that it
/// names may come later; a change in its folder is looked at at once.
const AGAIN: Duration = Duration::from_secs(5);
const AGAIN_MOST: Duration = Duration::from_secs(60);
/// A safety net: on some file systems (of a network, of a virtual machine's host) nobody tells of a change.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Why a file without a word in it is refused, which is a good config at a start.
const BLANK: &str = "is empty, which a running process takes for a file that is being written";

/// How a process reads its config again.
#[derive(Clone)]
pub struct Reload {
    /// Reads it.
    pub load: Load,
    /// Whether SIGHUP asks for it. Not where a terminal that is closed shall end the process.
    pub on_hangup: bool,
    /// Nobody calls this process with a call key, which it only signs with.
    pub only_signs: bool,
}

/// What of a gateway follows the config.
pub struct Front {
    /// Its routes and what belongs to them.
    pub live: Live,
    /// How nodes are chosen.
    pub balancer: Arc<Balancer>,
    /// How nodes are asked whether they are well.
    pub checks: HealthChecks,
    /// Its certificates.
    pub tls: Option<Tls>,
}

struct Follower {
    how: Reload,
    file: PathBuf,
    /// `None`: it is no gateway.
    front: Option<Front>,
    /// In force, but for what needs a restart.
    config: Config,
    /// The text that was read last.
    text: Option<Vec<u8>>,
    /// What the files of messages were then.
    stamps: Vec<Option<Stamp>>,
    /// What was said of the text when it was refused.
    refused: Option<Refused>,
    reloads: IntCounterVec,
    is_good: IntGauge,
    dashboard: Dashboard,
    signing: SigningKey,
    recorder: Recorder,
}

/// A text that was refused.
struct Refused {
    /// Why.
    faults: String,
    /// When it was tried last, and how long it is left alone after that.
    tried: Instant,
    wait: Duration,
}

/// Whether a terminal controls this process, whose end then is the process's too: SIGHUP tells of it.
#[must_use]
pub fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// Follows the file of a process's config, until the process ends; `front` is its gateway.
///
/// # Errors
/// When the process cannot listen to SIGHUP.
pub fn follow(process: &Process, front: Option<Front>) -> Result<(), AppError> {
    let (Some(how), Some(file)) = (process.reload.clone(), process.config.file.clone()) else { return Ok(()) };
    let mut hangup = match how.on_hangup {
        true => Some(signal(SignalKind::hangup()).map_err(AppError::Start)?),
        false => None,
    };
    let metrics = &process.metrics;
    let reloads = metrics.counter("config_reloads_total", "configs that were read again", &["result"]);
    let is_good = metrics.gauge("config_last_reload_successful", "whether the last one read is in force", &[]);
    let is_good = is_good.with_label_values::<&str>(&[]);
    is_good.set(1);
    let text = std::fs::read(&file).ok();
    let config = process.config.clone();
    let stamps = config.gateway.descriptor_files().into_values().collect();
    let (dashboard, signing) = (process.dashboard.clone(), process.signing.clone());
    let mut follower = Follower {
        how,
        file,
        front,
        config,
        text,
        stamps,
        refused: None,
        reloads,
        is_good,
        dashboard,
        signing,
        recorder: process.recorder.clone(),
    };
    let changed = Arc::new(Notify::new());
    let watcher = watch(&follower.file, &changed);
    let ending = process.background.clone();
    process.background.spawn(async move {
        let _watcher = watcher;
        loop {
            let why = tokio::select! {
                () = ending.begun() => return,
                () = changed.notified() => {
                    tokio::time::sleep(SETTLE).await;
                    Look::Notice
                }
                () = tokio::time::sleep(LOOK_EVERY) => Look::Time,
                () = asked(&mut hangup) => Look::Asked,
            };
            follower.look(why);
        }
    });
    Ok(())
}

/// Why the file is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Something changed in its folder.
    Notice,
    /// It was not looked at for a while.
    Time,
    /// Somebody wants it read again.
    Asked,
}

/// The folder is watched, not the file: editors and deployment tools put another file in its place.
fn watch(file: &Path, changed: &Arc<Notify>) -> Option<RecommendedWatcher> {
    let notice = changed.clone();
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let tell = move |event: notify::Result<Event>| {
        // whoever only reads changes nothing, and this reads itself
        let only_read = |event: &Event| matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
        if !event.as_ref().is_ok_and(only_read) {
            notice.notify_one();
        }
    };
    let watcher = notify::recommended_watcher(tell).and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    watcher.map_err(|error| log::debug!("nobody tells of changes of the config, it is looked at instead: {error}")).ok()
}

async fn asked(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
    }
}

impl Follower {
    /// Reads the file again if it is another or was refused, or if somebody asked for it.
    fn look(&mut self, why: Look) {
        let text = std::fs::read(&self.file).ok();
        let files = self.config.gateway.descriptor_files();
        let stamps: Vec<Option<Stamp>> = files.keys().map(|file| stamp(file)).collect();
        let is_same = text == self.text && stamps == self.stamps && why != Look::Asked;
        let is_left_alone = |refused: &Refused| why == Look::Time && refused.tried.elapsed() < refused.wait;
        if is_same && self.refused.as_ref().is_none_or(is_left_alone) {
            return;
        }
        (self.text, self.stamps) = (text, stamps);
        let is_gateway = self.front.is_some();
        // of a config that hosts share, a gateway's certificates are on its own, and a service's follow a restart
        let checked = |config: &Config| if is_gateway { config.for_gateway() } else { Ok(()) };
        let loaded = match self.is_blank() {
            true => Err(ConfigErrors::one(&self.file.display().to_string(), None, BLANK.to_owned())),
            false => (self.how.load)().and_then(|config| checked(&config).map(|()| config)),
        };
        let before = self.refused.take();
        self.refused = loaded.as_ref().err().map(|errors| {
            let wait = before.as_ref().filter(|_| is_same).map_or(AGAIN, |before| (before.wait * 2).min(AGAIN_MOST));
            Refused { faults: errors.to_string(), tried: Instant::now(), wait }
        });
        if is_same && before.map(|before| before.faults) == self.refused.as_ref().map(|now| now.faults.clone()) {
            return; // as the log says already
        }
        service_manager::reloading();
        match loaded {
            Ok(config) => {
                self.take(config);
                service_manager::reloaded();
            }
            Err(errors) => {
                service_manager::refused();
                self.is_good.set(0);
                self.reloads.with_label_values(&["refused"]).inc();
                log::error!("config not reloaded, the one before stays in force file={}", self.file.display());
                let errors = errors.to_string();
                for fault in errors.lines() {
                    log::error!("{fault}");
                }
                self.dashboard.note_reload(false, errors.lines().map(str::to_owned).collect());
            }
        }
    }

    /// Whoever writes a file anew empties it first.
    fn is_blank(&self) -> bool {
        self.text.as_ref().is_some_and(|text| text.trim_ascii().is_empty())
    }

    fn take(&mut self, mut config: Config) {
        let restart = match &self.front {
            Some(_) => self.config.differences_that_need_a_restart(&config),
            None => self.config.differences_that_need_a_restart_of_a_service(&config),
        };
        if config.gateway.call_keys.is_empty() {
            // a file that lost its keys switches no guard off; `restart` names it
            config.gateway.call_keys = self.config.call_keys.to_vec();
        }
        self.config.call_keys.replace(config.gateway.call_keys.clone());
        self.signing.set(config.gateway.call_keys.first());
        if let Some(Front { live, balancer, checks, tls }) = &self.front {
            // first how nodes are chosen: a new route may lead to a service that is new too
            balancer.configure(config.gateway.balance());
            checks.configure(config.gateway.health(), config.gateway.call_keys.first().cloned());
            live.replace(config.gateway.clone());
            if let (Some(tls), Some(settings)) = (tls, &config.gateway.tls) {
                tls.replace(settings.clone());
            }
        }
        logging::follow(&config.log);
        self.recorder.set_sample(config.trace.sample);
        self.dashboard.set_login(config.login.clone(), config.node.admin_bind.is_loopback());
        self.is_good.set(1);
        self.reloads.with_label_values(&["taken"]).inc();
        let actions: usize = config.gateway.services.values().map(|service| service.actions.len()).sum();
        log::info!(
            "config reloaded file={} actions={actions} routes={}",
            self.file.display(),
            config.gateway.routes.len()
        );
        let told = restart.iter().map(|key| format!("a restart is needed for {key}"));
        self.dashboard.note_reload(true, told.collect());
        if !restart.is_empty() {
            log::warn!("a restart is needed for {}", restart.join(", "));
        }
        // what needs a restart is compared with what the process runs with, each time
        self.config.log = config.log;
        self.config.login = config.login;
        if self.front.is_some() {
            self.config.gateway = config.gateway;
        }
        self.stamps = self.config.gateway.descriptor_files().into_values().collect();
    }
}
