//! Compares the clients' settings with those that docs/clients.md recommends. The page and each of the four languages
//! write a setting in their own way; one that is changed in one place alone fails here.

/// Describes the settings of a channel and the calls to retry.
const PAGE: &str = include_str!("../../../docs/clients.md");
/// Files in which each client makes its calls: Python, Go, TypeScript, Java.
const CLIENTS: [&str; 4] = [
    include_str!("../../../clients/python/story.py"),
    include_str!("../../../clients/go/cmd/story/call.go"),
    include_str!("../../../clients/typescript/src/story.ts"),
    include_str!("../../../clients/java/src/main/java/sale/stampede/story/Story.java"),
];

/// Each setting as the page and each client write it. Empty where a library has no such setting.
const SETTINGS: [(&str, [&str; 4]); 10] = [
    (
        "keep-alive ping | every 30 s",
        ["keepalive_time_ms\", 30_000", "Time: 30 * time.Second", "pingIntervalMs: 30_000", "keepAliveTime(30, "],
    ),
    (
        "10 s for its answer",
        [
            "keepalive_timeout_ms\", 10_000",
            "Timeout: 10 * time.Second",
            "pingTimeoutMs: 10_000",
            "keepAliveTimeout(10, ",
        ],
    ),
    (
        "largest message received | 24 MiB",
        ["24 * 1024 * 1024", "MaxCallRecvMsgSize(24<<20)", "24 * 1024 * 1024", "maxInboundMessageSize(24 << 20)"],
    ),
    ("wait for ready | for calls and streams", ["wait_for_ready=True", "WaitForReady(true)", "", "withWaitForReady()"]),
    (
        "longest pause before the next connection | 5 s",
        ["max_reconnect_backoff_ms\", 5_000", "MaxDelay = 5 * time.Second", "", ""],
    ),
    (
        "5 seconds, of all",
        ["CALL_S = 5.0", "callTimeout = 5 * time.Second", "CALL_TIMEOUT_MS = 5_000", "CALL_MS = 5_000"],
    ),
    (
        "its tries together 15 to 30",
        ["PATIENCE_S = 30.0", "patience = 30 * time.Second", "PATIENCE_MS = 30_000", "PATIENCE_MS = 30_000"],
    ),
    (
        "100 ms, doubled",
        [
            "LEAST_BACKOFF_S = 0.1\n",
            "leastBackoff = 100 * time.Millisecond",
            "LEAST_BACKOFF_MS = 100;",
            "LEAST_BACKOFF_MS = 100;",
        ],
    ),
    (
        "at each try up to 2 s",
        [
            "MOST_BACKOFF_S = 2.0",
            "mostBackoff  = 2 * time.Second",
            "MOST_BACKOFF_MS = 2_000",
            "MOST_BACKOFF_MS = 2_000",
        ],
    ),
    (
        "by chance between half and the whole",
        [
            "backoff_s * random.uniform(0.5, 1.0)",
            "most/2 + rand.N(most/2)",
            "backoff * (0.5 + Math.random() / 2)",
            "nextLong(backoff / 2, backoff + 1)",
        ],
    ),
];

#[test]
fn every_client_has_the_settings_of_the_page() {
    for (said, done) in SETTINGS {
        assert!(PAGE.contains(said), "docs/clients.md does not say {said:?}");
        for (client, done) in CLIENTS.iter().zip(done) {
            let title = client.lines().next().unwrap_or_default();
            assert!(client.contains(done), "{said:?} is not {done:?} in the file that begins with {title:?}");
        }
    }
}
