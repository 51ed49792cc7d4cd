//! Stampede as processes in a test's world.

use crate::{
    Service, World,
    process::{Process, free_address},
};
use anyhow::{Context, Result, ensure};
use stampede_proto::{
    coupon::v1::coupon_service_client::CouponServiceClient, event::v1::event_service_client::EventServiceClient,
    inventory::v1::inventory_service_client::InventoryServiceClient,
    order::v1::order_service_client::OrderServiceClient, payment::v1::payment_service_client::PaymentServiceClient,
};
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

/// Where one process listens.
#[derive(Debug, Clone, Copy)]
struct Addresses {
    listen: SocketAddr,
    admin: SocketAddr,
}

/// Chooses what runs, and how it is set.
#[derive(Debug, Default)]
pub struct MeshBuilder {
    settings: HashMap<Service, BTreeMap<String, String>>,
}

impl MeshBuilder {
    /// Sets an environment variable of one kind of process.
    #[must_use]
    pub fn set(mut self, service: Service, name: &str, value: impl ToString) -> Self {
        self.settings.entry(service).or_default().insert(name.to_owned(), value.to_string());
        self
    }

    /// Sets an environment variable of every kind of process.
    #[must_use]
    pub fn set_all(self, name: &str, value: impl ToString) -> Self {
        let value = value.to_string();
        Service::ALL.into_iter().fold(self, |builder, service| builder.set(service, name, &value))
    }

    /// Starts one kind of process alone and does not wait for it: for a test of a start that should not succeed.
    pub fn launch(self, world: &World, service: Service) -> Result<Alone> {
        let mesh = self.build(world)?;
        Ok(Alone { process: mesh.launch(service)?, _mesh: mesh })
    }

    fn build(self, world: &World) -> Result<Mesh> {
        let mut addresses = HashMap::new();
        for service in Service::ALL {
            addresses.insert(service, Addresses { listen: free_address()?, admin: free_address()? });
        }
        Ok(Mesh {
            world: world.clone(),
            settings: self.settings,
            addresses,
            processes: BTreeMap::new(),
            folder: TempDir::new()?,
        })
    }

    /// Starts these kinds of process, in the order of [`Service::ALL`], and waits until each is ready.
    pub async fn start(self, world: &World, services: &[Service]) -> Result<Mesh> {
        let mut mesh = self.build(world)?;
        for service in Service::ALL.into_iter().filter(|service| services.contains(service)) {
            mesh.start_one(service).await?;
        }
        Ok(mesh)
    }
}

/// One process that was started and not waited for. It ends when this is dropped.
#[derive(Debug)]
pub struct Alone {
    process: Process,
    /// Knows the addresses of the others, and has the folder of the log.
    _mesh: Mesh,
}

impl Alone {
    /// Whether it is ready now.
    pub async fn is_ready(&self) -> bool {
        self.process.is_ready().await
    }

    /// All that it has said.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until it has ended by itself. Returns its exit code and all that it has said.
    pub async fn ended(mut self) -> (Option<i32>, String) {
        let status = self.process.ended().await;
        (status.code(), self.log())
    }
}

/// The running processes. They end when it is dropped.
#[derive(Debug)]
pub struct Mesh {
    world: World,
    settings: HashMap<Service, BTreeMap<String, String>>,
    addresses: HashMap<Service, Addresses>,
    processes: BTreeMap<Service, Process>,
    folder: TempDir,
}

impl Mesh {
    /// Starts every process with the defaults.
    pub async fn start(world: &World) -> Result<Self> {
        MeshBuilder::default().start(world, &Service::ALL).await
    }

    /// `http://host:port` of a process.
    pub fn url(&self, service: Service) -> String {
        format!("http://{}", self.addresses[&service].listen)
    }

    /// `http://host:port` of the admin side of a process.
    pub fn admin_url(&self, service: Service) -> String {
        format!("http://{}", self.addresses[&service].admin)
    }

    /// The secret that tokens are signed with.
    pub fn auth_secret(&self) -> &'static str {
        AUTH_SECRET
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

    /// Ends a process as a power cut would.
    pub fn kill_9(&mut self, service: Service) -> Result<()> {
        self.processes.get_mut(&service).context("it is not running")?.kill_9()
    }

    /// Starts a process that was killed, where it was before.
    pub async fn restart(&mut self, service: Service) -> Result<()> {
        self.processes.remove(&service);
        self.start_one(service).await
    }

    /// Stops every process in the reverse order and checks that each ended well.
    pub async fn stop(mut self) -> Result<()> {
        for service in Service::ALL.into_iter().rev() {
            if let Some(process) = self.processes.get_mut(&service) {
                let status = process.terminate().await?;
                ensure!(status.success(), "{} ended with {status}:\n{}", service.name(), process.log_tail());
            }
        }
        Ok(())
    }

    fn channel(&self, service: Service) -> Channel {
        Endpoint::from_shared(self.url(service)).expect("an address is a URL").connect_lazy()
    }

    async fn start_one(&mut self, service: Service) -> Result<()> {
        let mut process = self.launch(service)?;
        process.wait_until_ready().await?;
        self.processes.insert(service, process);
        Ok(())
    }

    fn launch(&self, service: Service) -> Result<Process> {
        let addresses = self.addresses[&service];
        let ready = match service {
            Service::Sandbox => (addresses.listen, "/healthz"),
            _ => (addresses.admin, "/readyz"),
        };
        let log = self.folder.path().join(format!("{}.log", service.name()));
        Process::launch(service.name(), &self.settings_of(service), ready, log)
    }

    fn settings_of(&self, service: Service) -> BTreeMap<String, String> {
        let addresses = self.addresses[&service];
        let world = &self.world;
        let redis_url = if service == Service::Event { world.event_redis_url() } else { world.redis_url().to_owned() };
        let mut settings = BTreeMap::from([
            ("STAMPEDE_LISTEN_ADDR", addresses.listen.to_string()),
            ("STAMPEDE_ADMIN_ADDR", addresses.admin.to_string()),
            ("STAMPEDE_DATABASE_URL", world.service_database_url(service.name())),
            ("STAMPEDE_KAFKA_BROKERS", world.brokers().to_owned()),
            ("STAMPEDE_KAFKA_TOPIC_PREFIX", world.topic_prefix().to_owned()),
            ("STAMPEDE_REDIS_URL", redis_url),
            ("STAMPEDE_REDIS_KEY_PREFIX", world.redis_key_prefix()),
            ("STAMPEDE_EVENT_URLS", self.url(Service::Event)),
            ("STAMPEDE_COUPON_URLS", self.url(Service::Coupon)),
            ("STAMPEDE_INVENTORY_URLS", self.url(Service::Inventory)),
            ("STAMPEDE_ORDER_URLS", self.url(Service::Order)),
            ("STAMPEDE_PAYMENT_URLS", self.url(Service::Payment)),
            ("STAMPEDE_PROVIDER_URL", self.url(Service::Sandbox)),
            ("STAMPEDE_WEBHOOK_SECRET", WEBHOOK_SECRET.to_owned()),
            ("STAMPEDE_AUTH_SECRET", AUTH_SECRET.to_owned()),
            ("STAMPEDE_JOURNAL", self.folder.path().join("provider.jsonl").display().to_string()),
        ])
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect::<BTreeMap<_, _>>();
        settings.extend(self.settings.get(&service).cloned().unwrap_or_default());
        settings
    }
}
