//! The crowd of `stampede simulate` in a test that injects faults into the mesh, and the audit after.

use crate::sale::run_audit;
use sqlx::MySqlPool;
use stampede_testkit::{Mesh, Process, Service, World, eventually};
use stampede_vocab::EventId;
use std::{
    fs,
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// A running simulation.
pub struct Crowd {
    playing: Child,
    /// Has the sale file, and after the simulation the acknowledgements.
    folder: TempDir,
}

impl Crowd {
    /// Starts the simulation of this sale file on the gateway of the mesh.
    pub fn come(sale: &str, mesh: &Mesh) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sale.toml");
        fs::write(&file, sale).unwrap();
        let playing = Command::new(env!("CARGO_BIN_EXE_stampede"))
            .args(["-o", "json", "simulate"])
            .arg(file)
            .args(["--gateway-url", &mesh.url(Process::Gateway), "--auth-secret", mesh.auth_secret()])
            .arg("--acknowledged")
            .arg(folder.path().join("acknowledged.json"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { playing, folder }
    }

    /// Waits until the simulation has ended. Checks that it saw nothing unexpected, and that every promise holds,
    /// acknowledgements included. `more` are flags of the audit.
    pub async fn goes_home_content(self, world: &World, mesh: &Mesh, more: &[&str]) {
        let Self { playing, folder } = self;
        let output = tokio::task::spawn_blocking(move || playing.wait_with_output()).await.unwrap().unwrap();
        let report = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{report}\n{}", String::from_utf8_lossy(&output.stderr));
        let acknowledged = folder.path().join("acknowledged.json");
        let flags = ["--acknowledged", acknowledged.to_str().unwrap(), "--quiet-deadline-s", "90"];
        let audit = run_audit(world, mesh, &[&flags[..], more].concat());
        assert!(audit.holds, "{audit:#?}\n{report}");
    }
}

/// The orders of a world, to be counted.
pub struct Orders(MySqlPool);

impl Orders {
    pub async fn of(world: &World) -> Self {
        let url = format!("{}?ssl-mode=disabled", world.service_database_url(Service::Order));
        Self(MySqlPool::connect(&url).await.unwrap())
    }

    /// Returns the number of orders placed so far.
    pub async fn placed(&self) -> i64 {
        sqlx::query_scalar("SELECT COUNT(*) FROM orders").fetch_one(&self.0).await.unwrap()
    }

    /// Returns the event of the first order.
    pub async fn event(&self) -> EventId {
        let query = sqlx::query_scalar("SELECT event_id FROM orders LIMIT 1");
        let event_id: Vec<u8> = query.fetch_one(&self.0).await.unwrap();
        EventId::try_from_bytes(&event_id).unwrap()
    }

    /// Waits until so many orders were placed.
    pub async fn until_placed(&self, count: i64) {
        let all = || async move { (self.placed().await >= count).then_some(()) };
        eventually("the sale goes on", all).await;
    }
}
