//! Stampede as processes in a test's world.

use crate::{
    World,
    callers::MESH_SECRET,
    running::{Running, free_address},
};
use anyhow::{Context, Result, ensure};
use stampede_proto::{
    coupon::v1::coupon_service_client::CouponServiceClient, event::v1::event_service_client::EventServiceClient,
    inventory::v1::inventory_service_client::InventoryServiceClient,
    order::v1::order_service_client::OrderServiceClient, payment::v1::payment_service_client::PaymentServiceClient,
};
use stampede_vocab::{Process, RedisUse, Service};
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// Secret that tokens are signed with in tests.
const AUTH_SECRET: &str = "a secret of the tests, 32 bytes or more";
/// Secret that the provider's notices are signed with in tests.
const WEBHOOK_SECRET: &str = "a webhook secret of the tests, 32 bytes";

/// The addresses of one process.
#[derive(Debug, Clone, Copy)]
struct Addresses {
    listen: SocketAddr,
    admin: SocketAddr,
}

/// Chooses the processes that run, and their settings.
#[derive(Debug, Default)]
pub struct MeshBuilder {
    settings: HashMap<Process, BTreeMap<String, String>>,
    replicas: HashMap<Process, usize>,
}

impl MeshBuilder {
    /// Sets an environment variable of one kind of process.
    #[must_use]
    pub fn set(mut self, process: impl Into<Process>, name: &str, value: impl ToString) -> Self {
        self.settings.entry(process.into()).or_default().insert(name.to_owned(), value.to_string());
        self
    }

    /// Sets an environment variable of every kind of process.
    #[must_use]
    pub fn set_all(self, name: &str, value: impl ToString) -> Self {
        let value = value.to_string();
        Process::all().fold(self, |builder, process| builder.set(process, name, &value))
    }

    /// Sets the number of replicas, at least one, of one kind of process.
    #[must_use]
    pub fn replicas(mut self, process: impl Into<Process>, count: usize) -> Self {
        self.replicas.insert(process.into(), count);
        self
    }

    /// Starts one kind of process alone and does not wait for it: for a test of a start that should not succeed.
    pub fn launch(self, world: &World, process: impl Into<Process>) -> Result<Alone> {
        let mesh = self.build(world)?;
        Ok(Alone { process: mesh.launch(process.into(), 0)?, _mesh: mesh })
    }

    fn build(self, world: &World) -> Result<Mesh> {
        ensure!(
            self.replicas.values().all(|count| *count > 0),
            "no replica is none of this kind: leave it out of `start`"
        );
        let mut addresses = HashMap::new();
        for process in Process::all() {
            let replicas = 0..self.replicas.get(&process).copied().unwrap_or(1);
            let free = |_| anyhow::Ok(Addresses { listen: free_address()?, admin: free_address()? });
            addresses.insert(process, replicas.map(free).collect::<Result<_>>()?);
        }
        Ok(Mesh {
            world: world.clone(),
            settings: self.settings,
            addresses,
            processes: BTreeMap::new(),
            killed: BTreeMap::new(),
            folder: TempDir::new()?,
        })
    }

    /// Starts these kinds of process, and waits until each is ready. The provider is started before the others,
    /// which treat an unreachable one as failed. The others start concurrently: each waits for its own dependencies.
    pub async fn start<P: Into<Process>>(self, world: &World, started: impl IntoIterator<Item = P>) -> Result<Mesh> {
        let started: Vec<Process> = started.into_iter().map(Into::into).collect();
        let mut mesh = self.build(world)?;
        let started = Process::all().filter(|process| started.contains(process));
        let (provider, others): (Vec<_>, Vec<_>) = started.partition(|process| *process == Process::Sandbox);
        mesh.start_together(&provider).await?;
        mesh.start_together(&others).await?;
        Ok(mesh)
    }
}

/// One process that was started and not waited for. It ends when this is dropped.
#[derive(Debug)]
pub struct Alone {
    process: Running,
    /// Knows the addresses of the others, and has the folder of the log.
    _mesh: Mesh,
}

impl Alone {
    /// Whether it is ready now.
    pub async fn is_ready(&self) -> bool {
        self.process.is_ready().await
    }

    /// Returns its log.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until it has ended on its own. Returns its exit code and its log.
    pub async fn ended(mut self) -> (Option<i32>, String) {
        let status = self.process.ended().await;
        (status.code(), self.log())
    }
}

/// The running processes. They end when it is dropped.
#[derive(Debug)]
pub struct Mesh {
    world: World,
    settings: HashMap<Process, BTreeMap<String, String>>,
    /// The addresses of each replica; there is at least one.
    addresses: HashMap<Process, Vec<Addresses>>,
    processes: BTreeMap<(Process, usize), Running>,
    /// First replicas that were killed and not started again, for their logs should the test fail.
    killed: BTreeMap<Process, Running>,
    folder: TempDir,
}

impl Mesh {
    /// Starts every process with the defaults.
    pub async fn start(world: &World) -> Result<Self> {
        MeshBuilder::default().start(world, Process::all()).await
    }

    /// `http://host:port` of a process, of its first replica if there are more.
    pub fn url(&self, process: impl Into<Process>) -> String {
        format!("http://{}", self.addresses[&process.into()][0].listen)
    }

    /// The same of its admin side.
    pub fn admin_url(&self, process: impl Into<Process>) -> String {
        format!("http://{}", self.addresses[&process.into()][0].admin)
    }

    /// Returns the URLs of all replicas, as callers get them.
    fn urls(&self, service: Service) -> String {
        let urls = self.addresses[&service.into()].iter().map(|replica| format!("http://{}", replica.listen));
        urls.collect::<Vec<_>>().join(",")
    }

    /// The secret that tokens are signed with.
    pub fn auth_secret(&self) -> &'static str {
        AUTH_SECRET
    }

    /// The secret that the provider's notices are signed with.
    pub fn webhook_secret(&self) -> &'static str {
        WEBHOOK_SECRET
    }

    /// Returns a channel to a service.
    pub fn channel(&self, service: Service) -> Channel {
        Endpoint::from_shared(self.url(service)).expect("an address is a URL").connect_lazy()
    }

    /// Returns the channels to all replicas of a service.
    pub fn replica_channels(&self, service: Service) -> Vec<Channel> {
        let replicas = self.addresses[&service.into()].iter();
        let channel = |replica: &Addresses| {
            let url = format!("http://{}", replica.listen);
            Endpoint::from_shared(url).expect("an address is a URL").connect_lazy()
        };
        replicas.map(channel).collect()
    }

    /// Calls the event service.
    pub fn event(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.channel(Service::Event))
    }

    /// Calls the coupon service.
    pub fn coupon(&self) -> CouponServiceClient<Channel> {
        CouponServiceClient::new(self.channel(Service::Coupon))
    }

    /// Calls the inventory service.
    pub fn inventory(&self) -> InventoryServiceClient<Channel> {
        InventoryServiceClient::new(self.channel(Service::Inventory))
    }

    /// Calls the order service.
    pub fn order(&self) -> OrderServiceClient<Channel> {
        OrderServiceClient::new(self.channel(Service::Order))
    }

    /// Calls the payment service.
    pub fn payment(&self) -> PaymentServiceClient<Channel> {
        PaymentServiceClient::new(self.channel(Service::Payment))
    }

    /// Ends a process, the first of its replicas if there are more, as a power cut would.
    pub fn kill_9(&mut self, process: impl Into<Process>) -> Result<()> {
        let process = process.into();
        let mut running = self.processes.remove(&(process, 0)).context("it is not running")?;
        running.kill_9()?;
        self.killed.insert(process, running);
        Ok(())
    }

    /// Freezes a replica (0 is the first) of a process, as a machine that swaps would.
    pub fn freeze(&self, process: impl Into<Process>, replica: usize) -> Result<()> {
        self.running(process, replica)?.freeze()
    }

    /// Continues a frozen replica.
    pub fn thaw(&self, process: impl Into<Process>, replica: usize) -> Result<()> {
        self.running(process, replica)?.thaw()
    }

    /// Returns the log of a process, the first of its replicas if there are more.
    pub fn log(&self, process: impl Into<Process>) -> Result<String> {
        Ok(self.running(process, 0)?.log())
    }

    fn running(&self, process: impl Into<Process>, replica: usize) -> Result<&Running> {
        self.processes.get(&(process.into(), replica)).context("it is not running")
    }

    /// Restarts a process that was killed or terminated, on its old port.
    pub async fn restart(&mut self, process: impl Into<Process>) -> Result<()> {
        let process = process.into();
        self.killed.remove(&process);
        self.start_one(process, 0).await
    }

    /// Returns the addresses of all replicas of a process.
    pub fn addresses(&self, process: impl Into<Process>) -> Vec<SocketAddr> {
        self.addresses[&process.into()].iter().map(|replica| replica.listen).collect()
    }

    /// The same of their admin sides.
    pub fn admin_addresses(&self, process: impl Into<Process>) -> Vec<SocketAddr> {
        self.addresses[&process.into()].iter().map(|replica| replica.admin).collect()
    }

    /// Replaces a replica (0 is the first) as a rollout does: stops it, waits until it has exited with 0, starts it on
    /// its old port, and waits until it is ready.
    pub async fn roll(&mut self, process: impl Into<Process>, replica: usize) -> Result<()> {
        let process = process.into();
        self.end(process, replica).await?;
        self.start_one(process, replica).await
    }

    /// Ends a process, the first of its replicas if there are more, as a rollout does: it leaves its groups and gives
    /// back its leases, so that whoever takes its place waits for neither. [`Mesh::restart`] starts it again.
    pub async fn terminate(&mut self, process: impl Into<Process>) -> Result<()> {
        self.end(process.into(), 0).await
    }

    async fn end(&mut self, process: Process, replica: usize) -> Result<()> {
        let mut running = self.processes.remove(&(process, replica)).context("it is not running")?;
        let status = running.terminate().await?;
        ensure!(status.success(), "{process} ended with {status}:\n{}", running.log_tail());
        Ok(())
    }

    /// Stops every process in the reverse order and checks that each exited with 0.
    pub async fn stop(mut self) -> Result<()> {
        // They are in the order of `Process::all`.
        for ((process, _), running) in self.processes.iter_mut().rev() {
            let status = running.terminate().await?;
            ensure!(status.success(), "{process} ended with {status}:\n{}", running.log_tail());
        }
        Ok(())
    }

    /// Starts all replicas of these kinds of process, and waits until each is ready.
    async fn start_together(&mut self, processes: &[Process]) -> Result<()> {
        let mut starting = Vec::new();
        for process in processes.iter().copied() {
            for replica in 0..self.addresses[&process].len() {
                starting.push(((process, replica), self.launch(process, replica)?));
            }
        }
        for (place, running) in starting {
            self.keep_once_ready(place, running).await?;
        }
        Ok(())
    }

    async fn start_one(&mut self, process: Process, replica: usize) -> Result<()> {
        let running = self.launch(process, replica)?;
        self.keep_once_ready((process, replica), running).await
    }

    /// Waits until it is ready. If that fails, the error has the end of its log, and the folder of all logs stays: why
    /// it did not start may be in those of the others.
    async fn keep_once_ready(&mut self, place: (Process, usize), mut running: Running) -> Result<()> {
        let ready = running.wait_until_ready().await;
        if ready.is_err() {
            self.folder.disable_cleanup(true);
        }
        let (process, replica) = place;
        let logs = self.folder.path().display();
        ready.with_context(|| format!("{process}-{replica} did not become ready; the logs of all are in {logs}"))?;
        self.processes.insert(place, running);
        Ok(())
    }

    fn launch(&self, process: Process, replica: usize) -> Result<Running> {
        let addresses = self.addresses[&process][replica];
        let ready = match process {
            Process::Sandbox => (addresses.listen, "/healthz"),
            Process::Service(_) | Process::Gateway => (addresses.admin, "/readyz"),
        };
        let log = self.folder.path().join(format!("{process}-{replica}.log"));
        Running::launch(process.name(), &self.settings_of(process, addresses), ready, log)
    }

    fn settings_of(&self, process: Process, addresses: Addresses) -> BTreeMap<String, String> {
        let world = &self.world;
        let redis_url = match process.redis() {
            Some(RedisUse::Timers) => world.event_redis_url(),
            Some(RedisUse::Main) | None => world.redis_url(),
        };
        let mut settings: BTreeMap<String, String> = [
            ("STAMPEDE_LISTEN_ADDR", addresses.listen.to_string()),
            ("STAMPEDE_ADMIN_ADDR", addresses.admin.to_string()),
            ("STAMPEDE_KAFKA_BROKERS", world.brokers().to_owned()),
            ("STAMPEDE_KAFKA_TOPIC_PREFIX", world.topic_prefix().to_owned()),
            ("STAMPEDE_REDIS_URL", redis_url.to_owned()),
            ("STAMPEDE_REDIS_KEY_PREFIX", world.redis_key_prefix()),
            ("STAMPEDE_PROVIDER_URL", self.url(Process::Sandbox)),
            ("STAMPEDE_WEBHOOK_SECRET", WEBHOOK_SECRET.to_owned()),
            ("STAMPEDE_AUTH_SECRET", AUTH_SECRET.to_owned()),
            ("STAMPEDE_MESH_SECRET", MESH_SECRET.to_owned()),
            // A whole crowd comes from one address, this machine's, and a test names the traces that it looks for.
            ("STAMPEDE_ADDRESS_SHARE_PERCENT", "100".to_owned()),
            ("STAMPEDE_ACT_LIMITS_FACTOR", "1000000".to_owned()),
            ("STAMPEDE_TRUSTED_PROXIES", "127.0.0.1".to_owned()),
            ("STAMPEDE_SANDBOX_JOURNAL", self.folder.path().join("provider.jsonl").display().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if let Process::Service(service) = process {
            settings.insert("STAMPEDE_DATABASE_URL".to_owned(), world.service_database_url(service));
        }
        settings.extend(process.calls().iter().map(|peer| (peer.urls_variable(), self.urls(*peer))));
        settings.extend(self.settings.get(&process).cloned().unwrap_or_default());
        settings
    }
}
