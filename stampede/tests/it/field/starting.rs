//! Commands and processes that start beside each other.

use crate::command::stampede;
use stampede_testkit::World;
use std::process::{Child, Stdio};

fn prepare(world: &World) -> Child {
    stampede(&["prepare", "--database-url", world.database_url(), "--kafka-brokers", world.brokers()])
        .args(["--schema-prefix", &world.schema_prefix(), "--kafka-topic-prefix", world.topic_prefix()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn case_27_of_two_that_prepare_at_once_both_succeed() {
    let world = World::new().unwrap();
    let both = [prepare(&world), prepare(&world)];
    for output in both.map(|child| child.wait_with_output().unwrap()) {
        assert!(output.status.success(), "{output:?}");
    }
}
