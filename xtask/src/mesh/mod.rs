//! The product's own processes as children: the payment sandbox, the services, the gateway.
//! It has their flags and environment, and no behaviour of theirs.

mod layout;
mod operator;
mod own;
mod tuning;

use crate::{
    cli::Profile,
    fleet::Fleet,
    identity::Identity,
    launch::{Launch, Tier},
    mesh::{layout::Instance, operator::TOPIC_PREFIX},
    probe,
    replicas::replicated,
    secrets::{self, Secrets},
    servers::Servers,
    shell,
    ui::Step,
    workspace::Workspace,
};
use stampede_vocab::{Process, RedisUse, Service};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

pub use crate::mesh::layout::Layout;
pub use crate::mesh::operator::SCHEMA_PREFIX;
pub use crate::mesh::own::Own;
pub use crate::mesh::tuning::Tuning;

/// A process starts in under a second; a busy machine is slower.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer than a process takes at most to drain.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Builds the one program that every process of the mesh runs, and returns where it is. Cargo shows its own progress.
pub fn build(workspace: &Workspace, profile: Profile) -> anyhow::Result<PathBuf> {
    let mut step = Step::begin("build", "building the mesh");
    let mut cargo = shell::cargo(workspace.root());
    cargo.args(["build", "--package", "stampede", "--profile", profile.cargo_name()]);
    step.pause();
    shell::shown(&mut cargo)?;
    step.done(&format!("stampede, {}", profile.describe()));
    Ok(workspace.binaries(profile.directory()).join("stampede"))
}

/// The configuration of the processes of a mesh.
pub struct Mesh<'a> {
    pub program: PathBuf,
    pub servers: &'a Servers,
    /// Their ports.
    pub layout: &'a Layout,
    pub secrets: &'a Secrets,
    /// The payment window of an order, in milliseconds; none leaves it at the service's default.
    pub pay_window_ms: Option<u64>,
    /// Settings and proxies of this run alone.
    pub tuning: Tuning,
}

impl Mesh<'_> {
    /// Starts the sandbox, the services one after another, and the gateway; each is ready before the next.
    pub fn start(&self, fleet: &mut Fleet) -> anyhow::Result<()> {
        self.write_environment(fleet.run())?;
        self.start_sandbox(fleet)?;
        for process in replicated() {
            let step = Step::begin(process.name(), "starting");
            for instance in self.layout.of(process) {
                fleet.start(self.launch(instance))?;
            }
            self.wait_ready(fleet, process)?;
            step.done(&self.layout.urls(process));
        }
        Ok(())
    }

    /// Waits until all replicas of a process are ready, and the payment sandbox answers.
    pub fn wait_ready(&self, fleet: &mut Fleet, process: Process) -> anyhow::Result<()> {
        if process == Process::Sandbox {
            return fleet.wait_ready("sandbox", READY_TIMEOUT, || probe::http_answers(self.layout.sandbox()));
        }
        for instance in self.layout.of(process) {
            fleet.wait_ready(&instance.name, READY_TIMEOUT, || probe::http_ready(instance.admin_port))?;
        }
        Ok(())
    }

    fn start_sandbox(&self, fleet: &mut Fleet) -> anyhow::Result<()> {
        let step = Step::begin("sandbox", "starting");
        let port = self.layout.sandbox();
        let args = [
            format!("--listen-addr=127.0.0.1:{port}"),
            format!("--journal={}", self.servers.data().join("sandbox.journal").display()),
            format!(
                "--webhook-url={}/v1/payments:webhook",
                self.tuning.led(Process::Sandbox, &self.layout.gateway_url())
            ),
        ];
        let mut launch = self.process(Process::Sandbox, "sandbox", Tier::Provider, args.to_vec());
        launch.env.push(("STAMPEDE_WEBHOOK_SECRET".into(), self.secrets.webhook.clone()));
        launch.env.extend(self.tuning.settings_of(Process::Sandbox));
        fleet.start(launch)?;
        self.wait_ready(fleet, Process::Sandbox)?;
        step.done(&self.layout.provider_url());
        Ok(())
    }

    fn launch(&self, instance: &Instance) -> Launch {
        let tier = if instance.process == Process::Gateway { Tier::Gateway } else { Tier::Service };
        let mut launch = self.process(instance.process, &instance.name, tier, Vec::new());
        launch.env = self.environment(instance).into_iter().collect();
        launch
    }

    fn process(&self, process: Process, name: &str, tier: Tier, args: Vec<String>) -> Launch {
        let serve = ["serve".to_owned(), process.to_string()];
        Launch {
            name: name.to_owned(),
            tier,
            program: self.program.clone(),
            args: serve.into_iter().chain(args).map(Into::into).collect(),
            env: Vec::new(),
            identity: Identity::Own,
            stop_timeout: STOP_TIMEOUT,
        }
    }

    /// Returns the environment of one process: only variables that it reads.
    fn environment(&self, instance: &Instance) -> BTreeMap<String, String> {
        let process = instance.process;
        let mut env = BTreeMap::from([
            ("STAMPEDE_LISTEN_ADDR".to_owned(), format!("127.0.0.1:{}", instance.port)),
            ("STAMPEDE_ADMIN_ADDR".to_owned(), format!("127.0.0.1:{}", instance.admin_port)),
        ]);
        let redis = process.redis().map(|redis| match redis {
            RedisUse::Main => self.main_redis_url(),
            RedisUse::Timers => self.servers.event_redis_url(),
        });
        env.extend(redis.map(|url| ("STAMPEDE_REDIS_URL".to_owned(), url)));
        env.extend(process.calls().iter().map(|peer| (peer.urls_variable(), self.layout.urls(*peer))));
        let own = match process {
            Process::Service(service) => self.environment_of_service(service),
            // A whole crowd comes from one address, this machine's.
            Process::Gateway => vec![
                ("STAMPEDE_AUTH_SECRET", self.secrets.auth.clone()),
                ("STAMPEDE_ADDRESS_SHARE_PERCENT", "100".to_owned()),
                ("STAMPEDE_ACT_LIMITS_FACTOR", "1000000".to_owned()),
            ],
            Process::Sandbox => Vec::new(),
        };
        if process != Process::Sandbox {
            env.insert(secrets::MESH.to_owned(), self.secrets.mesh.clone());
        }
        env.extend(own.into_iter().map(|(name, value)| (name.to_owned(), value)));
        env.values_mut().for_each(|value| *value = self.tuning.led(process, value));
        env.extend(self.tuning.settings_of(process));
        env
    }

    fn environment_of_service(&self, service: Service) -> Vec<(&'static str, String)> {
        let mut env = vec![
            ("STAMPEDE_DATABASE_URL", format!("{}/{SCHEMA_PREFIX}{service}", self.servers.database_url())),
            ("STAMPEDE_KAFKA_BROKERS", self.servers.kafka_brokers()),
            ("STAMPEDE_KAFKA_TOPIC_PREFIX", TOPIC_PREFIX.to_owned()),
        ];
        // Variables of one service alone. A new one needs nothing here.
        if service == Service::Payment {
            env.push(("STAMPEDE_PROVIDER_URL", self.layout.provider_url()));
            env.push(("STAMPEDE_WEBHOOK_SECRET", self.secrets.webhook.clone()));
        }
        if service == Service::Order {
            env.extend(self.pay_window_ms.map(|window_ms| ("STAMPEDE_PAY_WINDOW_MS", window_ms.to_string())));
        }
        env
    }

    /// Redis of stock, coupons and tokens.
    pub fn main_redis_url(&self) -> String {
        format!("{}/0", self.servers.redis_url())
    }
}
