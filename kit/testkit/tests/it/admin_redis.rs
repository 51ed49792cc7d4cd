//! The test's own connection has the same effects on one server and on a cluster.

use redis::AsyncCommands;
use stampede_testkit::{AdminRedis, OwnCluster, OwnRedis};

/// Enough that every master of a cluster has some.
const KEYS: usize = 50;

#[tokio::test]
async fn every_key_under_a_prefix_is_deleted_and_no_other() {
    let (server, cluster) = (OwnRedis::start(&[]).await.unwrap(), OwnCluster::start().await.unwrap());
    for url in [server.admin_url(), cluster.url()] {
        let mut admin = AdminRedis::connect(&url).await.unwrap();
        for number in 0..KEYS {
            let () = admin.set(format!("one:{number}"), number).await.unwrap();
            let () = admin.set(format!("other:{number}"), number).await.unwrap();
        }
        admin.delete_all("one:").await.unwrap();
        let mut left: Vec<String> = admin.keys("*").await.unwrap();
        left.sort_unstable();
        let mut expected: Vec<_> = (0..KEYS).map(|number| format!("other:{number}")).collect();
        expected.sort_unstable();
        assert_eq!(left, expected, "{url}");
    }
}

#[tokio::test]
async fn a_transaction_on_the_keys_of_one_slot_is_run_whole() {
    let (server, cluster) = (OwnRedis::start(&[]).await.unwrap(), OwnCluster::start().await.unwrap());
    for url in [server.admin_url(), cluster.url()] {
        let mut admin = AdminRedis::connect(&url).await.unwrap();
        let mut pipeline = redis::pipe();
        pipeline.atomic().cmd("SET").arg("{a}:1").arg("x").ignore().cmd("DUMP").arg("{a}:1").cmd("DEL").arg("{a}:1");
        let (dump, deleted): (Option<Vec<u8>>, i64) = pipeline.query_async(&mut admin).await.unwrap();
        assert!(dump.is_some() && deleted == 1, "{url}: {dump:?} {deleted}");
    }
}
