//! The operator's command, `stampede`, as it is called on a mesh of this machine.

use crate::{
    fleet::Fleet,
    mesh::Mesh,
    secrets::{self, Secrets},
    shell,
    ui::{Step, say},
};
use std::{path::Path, process::Command};

/// The prefix of a run's schemas.
pub const SCHEMA_PREFIX: &str = "stampede_";
/// The prefix of a run's topics.
pub const TOPIC_PREFIX: &str = "stampede";

impl Mesh<'_> {
    /// Creates missing schemas, tables and topics.
    pub fn prepare(&self) -> anyhow::Result<()> {
        let step = Step::begin("prepare", "migrating schemas, making topics");
        let mut command = self.operator();
        command.arg("prepare");
        command.args(["--database-url", &self.servers.database_url(), "--schema-prefix", SCHEMA_PREFIX]);
        command.args(["--kafka-brokers", &self.servers.kafka_brokers(), "--kafka-topic-prefix", TOPIC_PREFIX]);
        // Each partition is a request of its own in every round of a relay, too many for a machine that runs
        // everything.
        command.args(["--partitions", "4"]);
        shell::quiet(&mut command)?;
        step.done("schemas and topics are up to date");
        Ok(())
    }

    /// A simulation of this sale, to be run in the foreground.
    pub fn simulate(&self, sale: &Path) -> Command {
        self.simulate_through(&self.layout.gateway_url(), sale)
    }

    /// The same with another URL of the gateway for the crowd.
    pub fn simulate_through(&self, gateway_url: &str, sale: &Path) -> Command {
        let mut command = self.operator();
        command.arg("simulate").arg(sale).args(["--gateway-url", gateway_url]);
        command.env("STAMPEDE_AUTH_SECRET", &self.secrets.auth);
        command
    }

    /// An audit of all data of this mesh, and of the acknowledgements that a simulation recorded, to be run in the
    /// foreground.
    pub fn audit(&self, acknowledged: Option<&Path>) -> Command {
        let mut command = self.operator();
        command.arg("audit");
        command.args(["--database-url", &self.servers.database_url(), "--schema-prefix", SCHEMA_PREFIX]);
        command.args(["--redis-url", &self.main_redis_url()]);
        command.args(["--kafka-brokers", &self.servers.kafka_brokers(), "--kafka-topic-prefix", TOPIC_PREFIX]);
        command.args(["--provider-url", &self.layout.provider_url()]);
        if let Some(file) = acknowledged {
            command.arg("--acknowledged").arg(file);
        }
        command
    }

    /// Makes an access token of a role.
    pub fn token(&self, role: &str) -> anyhow::Result<String> {
        let mut command = self.operator();
        command.args(["token", "--role", role]).env(secrets::AUTH, &self.secrets.auth);
        Ok(shell::quiet(&mut command)?.trim().to_owned())
    }

    /// The command, tied to this process: it ends with a supervisor that is killed.
    fn operator(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(&self.program);
        command
    }

    /// Writes the environment of `stampede` to a file, so that a shell which sources it needs no flags.
    pub fn write_environment(&self, run: &Path) -> anyhow::Result<()> {
        self.secrets.write(
            run,
            &[
                ("STAMPEDE_GATEWAY_URL", self.layout.gateway_url()),
                ("STAMPEDE_ADMIN_DATABASE_URL", self.servers.database_url()),
                ("STAMPEDE_REDIS_URL", self.main_redis_url()),
                ("STAMPEDE_KAFKA_BROKERS", self.servers.kafka_brokers()),
                ("STAMPEDE_PROVIDER_URL", self.layout.provider_url()),
            ],
        )
    }

    /// Returns how to use the operator's command, without the secrets that it needs.
    pub fn print_hints(&self, fleet: &Fleet) {
        let (secrets, program) = (Secrets::file(fleet.run()), self.program.display());
        say(&format!("\nIn another shell: . {}", secrets.display()));
        say(&format!("an operator's token: {program} token --role operator"));
        say(&format!("the proof:           {program} audit"));
    }
}
