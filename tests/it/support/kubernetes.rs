//! Kubernetes' API server, a real one, on an etcd of its own. There are no kubelets and no controllers: a test writes what those
//! would.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::etcd::Etcd;
use super::ports::free_port;

/// It may do all.
const ADMIN: &str = "admin-token";
/// The service account `goms` of the namespace `default`, which may do what a Role lets it.
pub const ACCOUNT: &str = "account-token";

pub struct Kubernetes {
    binary: String,
    etcd: Etcd,
    child: Option<Child>,
    port: u16,
    dir: PathBuf,
}

impl Kubernetes {
    /// Starts one; `None` is a loud skip where there is none, and a failure in CI.
    pub fn start() -> Option<Self> {
        let binary = super::servers::kube_apiserver()?;
        let etcd = Etcd::start()?;
        let dir = std::env::temp_dir().join(super::servers::unique("goms-kubernetes-"));
        std::fs::create_dir_all(&dir).expect("temporary folder");
        let key = dir.join("account.key");
        let made =
            Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048").stderr(Stdio::null()).status();
        assert!(made.expect("openssl runs").success());
        let tokens = format!("{ADMIN},admin,1,\"system:masters\"\n{ACCOUNT},system:serviceaccount:default:goms,2\n");
        std::fs::write(dir.join("tokens.csv"), tokens).expect("written");
        let mut kubernetes = Self { binary, etcd, child: None, port: free_port(), dir };
        kubernetes.up();
        Some(kubernetes)
    }

    pub fn address(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Who vouches for it.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("certs/apiserver.crt")
    }

    /// Starts it, again with all it knew.
    pub fn up(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = std::fs::File::create(self.dir.join("log")).expect("log file");
        let file = |name: &str| self.dir.join(name).display().to_string();
        let child = Command::new(&self.binary)
            .arg(format!("--etcd-servers=http://{}", self.etcd.address()))
            .arg(format!("--secure-port={}", self.port))
            .args([
                "--bind-address=127.0.0.1",
                "--advertise-address=192.0.2.1",
                "--service-cluster-ip-range=10.0.0.0/24",
            ])
            .arg(format!("--cert-dir={}", file("certs")))
            .arg(format!("--token-auth-file={}", file("tokens.csv")))
            .args(["--authorization-mode=RBAC", "--endpoint-reconciler-type=none"])
            .args(["--service-account-issuer=https://goms", "--disable-admission-plugins=ServiceAccount"])
            .arg(format!("--service-account-key-file={}", file("account.key")))
            .arg(format!("--service-account-signing-key-file={}", file("account.key")))
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("it starts");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.ask("GET", "/readyz", None).is_none_or(|(status, _)| status != 200) {
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "it is not ready:\n{}", &log[log.len().saturating_sub(3000)..]);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is killed");
            child.wait().expect("it is gone");
        }
    }

    /// Status and answer of a request by who may do all; `None`: no answer.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Option<(u16, String)> {
        let mut command = Command::new("curl");
        command.args(["-s", "-g", "-m", "10", "-w", "\n%{http_code}", "-X", method, "--cacert"]).arg(self.ca_file());
        command.args(["-H", &format!("Authorization: Bearer {ADMIN}")]);
        if let Some(body) = body {
            command.args(["-H", "Content-Type: application/json", "--data", &body.to_string()]);
        }
        let output = command.arg(format!("{}{path}", self.address())).output().expect("curl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n')?;
        Some((status.parse().ok().filter(|status| *status > 0)?, body.to_owned()))
    }

    /// Makes an object; strictly: a field that Kubernetes does not know fails.
    pub fn create(&self, path: &str, object: &Value, dry: bool) {
        let dry = if dry { "&dryRun=All" } else { "" };
        let path = format!("{path}?fieldValidation=Strict{dry}");
        let (status, answer) = self.ask("POST", &path, Some(object)).expect("an answer");
        assert_eq!(status, 201, "{path}: {answer}");
    }

    pub fn replace(&self, path: &str, object: &Value) {
        let (status, answer) = self.ask("PUT", path, Some(object)).expect("an answer");
        assert_eq!(status, 200, "{path}: {answer}");
    }

    pub fn delete(&self, path: &str) {
        let (status, answer) = self.ask("DELETE", path, None).expect("an answer");
        assert_eq!(status, 200, "{path}: {answer}");
    }

    /// What lets `goms` read slices: the objects of the manifest that is meant for it.
    pub fn grant(&self) {
        let rights = ["ServiceAccount", "Role", "RoleBinding"];
        for object in
            manifest("registry.yaml").iter().filter(|object| rights.iter().any(|kind| object["kind"] == *kind))
        {
            let mut object = object.clone();
            for subject in object.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
                subject["namespace"] = json!("default"); // `kubectl apply` does so
            }
            self.create(&collection(&object), &object, false);
        }
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        self.kill();
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            eprintln!("cannot remove `{}`: {error}", self.dir.display());
        }
    }
}

/// The objects of a file in `scripts/kubernetes`.
pub fn manifest(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(format!("scripts/kubernetes/{name}")).expect("the manifest");
    let documents = serde_yaml::Deserializer::from_str(&text);
    let read = |document| {
        let mut value: serde_yaml::Value = serde::Deserialize::deserialize(document).expect("YAML");
        value.apply_merge().expect("merged");
        serde_json::to_value(value).expect("JSON")
    };
    documents.map(read).collect()
}

/// Where objects of this kind are made, in the namespace `default`.
pub fn collection(object: &Value) -> String {
    let version = object["apiVersion"].as_str().expect("a version");
    let kind = object["kind"].as_str().expect("a kind").to_lowercase();
    let root = if version.contains('/') { "apis" } else { "api" };
    let plural = if let Some(stem) = kind.strip_suffix('y') { format!("{stem}ies") } else { format!("{kind}s") };
    format!("/{root}/{version}/namespaces/default/{plural}")
}
