//! The address of Redis, parsed from a URL.

use crate::RedisError;

/// Scheme of the URL of a cluster.
const CLUSTER: &str = "redis-cluster://";

/// One server, or a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// `redis://[user:password@]host:port[/database]`.
    Server(String),
    /// The same without a database, for each node that the URL names: at least one.
    Cluster(Vec<String>),
}

impl Address {
    /// Parses the URL of a server, which the client checks, or of a cluster:
    /// `redis-cluster://[user:password@]host:port[,host:port...]`. Fails for a node that is no `host:port`, and names
    /// it.
    pub(crate) fn parse(url: &str) -> Result<Self, RedisError> {
        let Some(named) = url.strip_prefix(CLUSTER) else { return Ok(Self::Server(url.to_owned())) };
        // No node has an @ in it, and a password has one only as %40.
        let (login, nodes) = match named.rsplit_once('@') {
            Some((login, nodes)) => (format!("{login}@"), nodes),
            None => (String::new(), named),
        };
        let urls = nodes.split(',').map(|node| match is_node(node) {
            true => Ok(format!("redis://{login}{node}")),
            false => Err(RedisError::Url(format!(
                "\"{node}\" is no node of a cluster: the URL is {CLUSTER}[user:password@]host:port[,host:port...], \
                 with a port for each node and no database"
            ))),
        });
        Ok(Self::Cluster(urls.collect::<Result<_, _>>()?))
    }

    pub(crate) const fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}

/// Whether it is `host:port`.
fn is_node(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_host = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/?#".contains(c));
    is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_read_as_its_nodes_and_anything_else_as_a_server() {
        let nodes = |urls: &[&str]| Address::Cluster(urls.iter().map(|url| (*url).to_owned()).collect());
        for (url, expected) in [
            ("redis-cluster://a:1", nodes(&["redis://a:1"])),
            ("redis-cluster://a:1,[::1]:2", nodes(&["redis://a:1", "redis://[::1]:2"])),
            ("redis-cluster://me:p%40ss@a:1,b:2", nodes(&["redis://me:p%40ss@a:1", "redis://me:p%40ss@b:2"])),
            ("redis://me:pass@a:1/1", Address::Server("redis://me:pass@a:1/1".to_owned())),
        ] {
            assert_eq!(Address::parse(url).unwrap(), expected, "{url}");
        }
    }

    #[test]
    fn what_is_no_node_is_named_without_the_password() {
        for (url, named) in [
            ("redis-cluster://", "\"\""),
            ("redis-cluster://me:secret@a", "\"a\""),
            ("redis-cluster://me:secret@a:1,b:2/1", "\"b:2/1\""),
            ("redis-cluster://a:1,", "\"\""),
            ("redis-cluster://a:1, b:2", "\" b:2\""),
            ("redis-cluster://a:0", "\"a:0\""),
            ("redis-cluster://redis://a:1", "\"redis://a:1\""),
        ] {
            let error = Address::parse(url).expect_err(url);
            let text = error.to_string();
            assert!(text.contains(named) && text.contains("host:port") && !text.contains("secret"), "{text}");
            assert!(!error.is_unreachable(), "to ask again would not help");
        }
    }
}
