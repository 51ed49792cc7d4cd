//! How Kafka is started for development: one node, broker and controller in one small JVM.

use crate::{
    identity::Identity,
    launch::{Launch, Tier},
    servers::{STOP_TIMEOUT, ServerPorts},
    setup::kafka_libraries,
    shell,
    workspace::Workspace,
};
use anyhow::{Context, bail};
use std::{
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Any 16 bytes in base64 will do: the cluster has one node, and talks to no other.
const CLUSTER_ID: &str = "c3RhbXBlZGUtZGV2LTAwMQ";

/// Quick to start and small: the first compiler of the JVM only, and its simplest collector. The heap holds the topics
/// of all tests of a run; where they hardly fit, Kafka spends its time in garbage collection.
const JVM: [&str; 3] = ["-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];

/// One more listener of Kafka. It advertises another address to its clients, where a proxy forwards to it.
#[derive(Debug, Clone)]
pub struct Listener {
    /// The name of the listener: capital letters.
    pub name: String,
    pub port: u16,
    /// The address that it advertises.
    pub advertised: SocketAddr,
}

/// A Kafka on its own data directory, which is formatted the first time.
pub fn launch(workspace: &Workspace, data: &Path, identity: Identity, ports: &ServerPorts) -> anyhow::Result<Launch> {
    let home = data.join("kafka");
    identity.own_directory(&home)?;
    let properties = home.join("server.properties");
    write_properties(workspace, &properties, &home.join("data"), ports)?;
    let java = Java {
        program: shell::find_program("java").context("java is gone; run cargo xtask setup")?,
        class_path: class_path(&kafka_libraries(workspace))?,
        logging: workspace.root().join("deploy/dev/kafka/log4j2.properties"),
    };
    if !home.join("data/meta.properties").exists() {
        java.format(identity, &properties)?;
    }
    Ok(Launch {
        name: "kafka".into(),
        tier: Tier::Server,
        args: java.args("kafka.Kafka").into_iter().chain([properties.into()]).collect(),
        program: java.program,
        env: vec![("CLASSPATH".into(), java.class_path)],
        identity,
        stop_timeout: STOP_TIMEOUT,
    })
}

fn write_properties(workspace: &Workspace, to: &Path, data: &Path, ports: &ServerPorts) -> anyhow::Result<()> {
    let from = workspace.root().join("deploy/dev/kafka/server.properties");
    let template = fs::read_to_string(&from).with_context(|| format!("cannot read {}", from.display()))?;
    fs::write(to, filled(&template, data, ports)).with_context(|| format!("cannot write {}", to.display()))
}

fn filled(template: &str, data: &Path, ports: &ServerPorts) -> String {
    let each = |entry: fn(&Listener) -> String| ports.listeners.iter().map(entry).collect::<String>();
    template
        .replace("{{port}}", &ports.kafka.to_string())
        .replace("{{controller_port}}", &ports.kafka_controller.to_string())
        .replace("{{listeners}}", &each(|of| format!(",{}://127.0.0.1:{}", of.name, of.port)))
        .replace("{{advertised}}", &each(|of| format!(",{}://{}", of.name, of.advertised)))
        .replace("{{protocols}}", &each(|of| format!(",{}:PLAINTEXT", of.name)))
        .replace("{{data}}", &data.display().to_string())
}

/// One explicit list in a stable order.
fn class_path(libraries: &Path) -> anyhow::Result<String> {
    let entries = fs::read_dir(libraries)
        .with_context(|| format!("cannot read {}; run cargo xtask setup", libraries.display()))?;
    let mut jars = Vec::new();
    for entry in entries {
        jars.push(entry.context("cannot list Kafka's jars")?.path().display().to_string());
    }
    if jars.is_empty() {
        bail!("{} is empty; remove it and run cargo xtask setup", libraries.display());
    }
    jars.sort();
    Ok(jars.join(":"))
}

struct Java {
    program: PathBuf,
    class_path: String,
    logging: PathBuf,
}

impl Java {
    fn args(&self, class: &str) -> Vec<OsString> {
        let mut args: Vec<OsString> = JVM.map(OsString::from).to_vec();
        args.push(format!("-Dlog4j2.configurationFile={}", self.logging.display()).into());
        args.push(class.into());
        args
    }

    fn format(&self, identity: Identity, properties: &Path) -> anyhow::Result<()> {
        let mut command = identity.command(&self.program);
        command.env("CLASSPATH", &self.class_path).args(self.args("kafka.tools.StorageTool"));
        command
            .args(["format", "--cluster-id", CLUSTER_ID, "--feature", "share.version=0", "--config"])
            .arg(properties);
        shell::quiet(&mut command).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Ports;

    #[test]
    fn a_listener_is_added_and_advertises_another_address() {
        let template = include_str!("../../../deploy/dev/kafka/server.properties");
        let mut ports = ServerPorts::anywhere(&mut Ports::default(), 30_000).expect("ports are free");
        let without = filled(template, Path::new("/data"), &ports);
        let advertised = "127.0.0.2:5678".parse().expect("it is an address");
        ports.add_listener(Listener { name: "ORDER".into(), port: 1_234, advertised });
        let with = filled(template, Path::new("/data"), &ports);
        assert!(!with.contains("{{") && !without.contains("{{") && !without.contains("ORDER"), "{with}");
        let line = |name: &str| with.lines().find(|line| line.starts_with(name)).expect("it is there").to_owned();
        assert!(line("listeners=").ends_with(",ORDER://127.0.0.1:1234"), "{with}");
        assert!(line("advertised.listeners=").ends_with(",ORDER://127.0.0.2:5678"), "{with}");
        assert!(line("listener.security.protocol.map=").ends_with(",ORDER:PLAINTEXT"), "{with}");
    }
}
