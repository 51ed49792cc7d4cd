//! Rate limits on a real Redis: acts per time, open orders, and the list of revoked logins.

use stampede_lua::{
    Redis, RedisConfig,
    gate::{self, Admission, Bucket, OpenOrders, Question, Timestamp, UserId},
};
use stampede_vocab::OrderId;
use std::time::Duration;
use uuid::Uuid;

const MINUTE: Duration = Duration::from_secs(60);

async fn redis() -> Redis {
    let url = std::env::var("STAMPEDE_TEST_REDIS_URL").expect("STAMPEDE_TEST_REDIS_URL names the Redis of the tests");
    Redis::connect(RedisConfig { url, key_prefix: format!("test-limit:{}:", UserId::random()) }).await.unwrap()
}

fn bucket(redis: &Redis, subject: &str, burst: u64, interval: Duration) -> Bucket {
    Bucket::new(redis.keys(), subject, "claim", burst, interval)
}

fn order(number: u128) -> OrderId {
    OrderId::from_uuid(Uuid::from_u128(number))
}

/// An order of `usr_1`, who may have so many open.
fn ordering(redis: &Redis, number: u128, most: u64) -> Question {
    let open = OpenOrders::of(redis.keys(), "usr_1");
    Question::Act(vec![bucket(redis, "usr_1", 100, MINUTE).bounding(open, most, order(number))])
}

fn placed(redis: &Redis, number: u128, life: Duration) -> Question {
    Question::Placed { order: order(number), of: vec![OpenOrders::of(redis.keys(), "usr_1")], life }
}

fn settled(redis: &Redis, number: u128) -> Question {
    settled_for(redis, number, MINUTE)
}

/// Settles an order, and remembers that for so long.
fn settled_for(redis: &Redis, number: u128, life: Duration) -> Question {
    Question::Settled { order: order(number), of: vec![OpenOrders::of(redis.keys(), "usr_1")], life }
}

/// Asks the questions in one call.
async fn ask(redis: &Redis, questions: Vec<Question>) -> Vec<Admission> {
    gate::ask_limits(redis, questions).await.into_iter().map(Result::unwrap).collect()
}

async fn admit(redis: &Redis, bucket: &Bucket) -> Admission {
    ask(redis, vec![Question::Act(vec![bucket.clone()])]).await.remove(0)
}

#[tokio::test]
async fn so_many_acts_are_admitted_at_once_and_the_next_after_its_time() {
    let redis = redis().await;
    let three = bucket(&redis, "usr_1", 3, MINUTE);
    for _ in 0..3 {
        assert_eq!(admit(&redis, &three).await, Admission::Admitted);
    }
    for _ in 0..3 {
        match admit(&redis, &three).await {
            Admission::Throttled { bucket: 0, wait } => assert!(wait > MINUTE / 2 && wait <= MINUTE, "{wait:?}"),
            other => panic!("a refusal costs nothing, and admits nothing: {other:?}"),
        }
    }
    let other = bucket(&redis, "usr_2", 3, MINUTE);
    assert_eq!(admit(&redis, &other).await, Admission::Admitted, "each has a bucket of its own");
    let pay = Bucket::new(redis.keys(), "usr_1", "pay", 3, MINUTE);
    assert_eq!(admit(&redis, &pay).await, Admission::Admitted, "for each act");
}

#[tokio::test]
async fn a_bucket_makes_room_with_time() {
    let redis = redis().await;
    let quick = bucket(&redis, "usr_1", 1, Duration::from_millis(200));
    assert_eq!(admit(&redis, &quick).await, Admission::Admitted);
    let Admission::Throttled { wait, .. } = admit(&redis, &quick).await else { panic!("it has room for one") };
    tokio::time::sleep(wait + Duration::from_millis(20)).await;
    assert_eq!(admit(&redis, &quick).await, Admission::Admitted);
}

#[tokio::test]
async fn of_many_at_once_no_more_are_admitted() {
    let redis = redis().await;
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let redis = redis.clone();
        tries.spawn(async move { admit(&redis, &bucket(&redis, "usr_1", 5, MINUTE)).await });
    }
    let outcomes = tries.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Admission::Admitted).count(), 5);
}

#[tokio::test]
async fn nothing_is_kept_of_a_bucket_that_is_empty_again() {
    let server = stampede_testkit::OwnRedis::start(&[]).await.unwrap();
    let redis = Redis::connect(RedisConfig { url: server.url(), key_prefix: String::new() }).await.unwrap();
    let short = bucket(&redis, "usr_1", 5, Duration::from_millis(50));
    assert_eq!(admit(&redis, &short).await, Admission::Admitted);
    stampede_testkit::eventually("the key is gone", || async { (server.keys().await.unwrap() == 0).then_some(()) })
        .await;
}

#[tokio::test]
async fn each_question_of_a_call_sees_what_those_before_it_took() {
    let redis = redis().await;
    let claim =
        |user: &str| Question::Act(vec![bucket(&redis, user, 2, MINUTE), bucket(&redis, "192.0.2.1", 3, MINUTE)]);
    let answers = ask(&redis, ["usr_1", "usr_1", "usr_1", "usr_2", "usr_3"].map(claim).into()).await;
    assert_eq!(answers[..2], [Admission::Admitted; 2]);
    assert!(matches!(answers[2], Admission::Throttled { bucket: 0, .. }), "{answers:?}");
    assert_eq!(answers[3], Admission::Admitted, "who was over their own limit took nothing from the address");
    assert!(matches!(answers[4], Admission::Throttled { bucket: 1, .. }), "{answers:?}");
}

#[tokio::test]
async fn an_order_written_in_a_call_counts_for_the_questions_behind_it() {
    // In a cluster all that is written in a call is written before anything is asked.
    let server = stampede_testkit::OwnRedis::start(&[]).await.unwrap();
    let redis = Redis::connect(RedisConfig { url: server.url(), key_prefix: String::new() }).await.unwrap();
    let questions = vec![
        ordering(&redis, 1, 1),
        placed(&redis, 1, MINUTE),
        ordering(&redis, 2, 1),
        ordering(&redis, 1, 1),
        settled(&redis, 1),
        ordering(&redis, 2, 1),
        Question::Act(vec![bucket(&redis, "usr_2", 1, MINUTE)]),
    ];
    let answers = ask(&redis, questions).await;
    assert!(matches!(answers[2], Admission::Open { bucket: 0, .. }), "{answers:?}");
    let admitted = answers.iter().filter(|answer| **answer == Admission::Admitted).count();
    assert_eq!(admitted, 6, "{answers:?}");
}

#[tokio::test]
async fn an_order_counts_for_its_buyer_and_for_their_address() {
    let redis = redis().await;
    let open = |subject: &str| OpenOrders::of(redis.keys(), subject);
    let by_both = |number: u128| {
        let [user, address] = ["usr_1", "192.0.2.1"].map(|subject| bucket(&redis, subject, 100, MINUTE));
        let user = user.bounding(open("usr_1"), 2, order(number));
        Question::Act(vec![user, address.bounding(open("192.0.2.1"), 1, order(number))])
    };
    let of = vec![open("usr_1"), open("192.0.2.1")];
    ask(&redis, vec![Question::Placed { order: order(1), of: of.clone(), life: MINUTE }]).await;
    let answers = ask(&redis, vec![by_both(2), by_both(1)]).await;
    assert!(matches!(answers[0], Admission::Open { bucket: 1, .. }), "{answers:?}");
    assert_eq!(answers[1], Admission::Admitted, "a repeat");
    let settled = Question::Settled { order: order(1), of, life: MINUTE };
    assert_eq!(ask(&redis, vec![settled, by_both(2)]).await, [Admission::Admitted; 2]);
}

#[tokio::test]
async fn as_many_questions_as_a_call_may_have_are_answered() {
    let redis = redis().await;
    let user = |number: usize| bucket(&redis, &format!("usr_{number}"), 1, MINUTE);
    let act = |number: usize| Question::Act(vec![user(number), bucket(&redis, "192.0.2.1", 1_000, MINUTE)]);
    let answers = ask(&redis, (0..gate::MAX_QUESTIONS).map(act).collect()).await;
    assert_eq!(answers, vec![Admission::Admitted; gate::MAX_QUESTIONS]);
    assert!(matches!(admit(&redis, &user(gate::MAX_QUESTIONS - 1)).await, Admission::Throttled { .. }));
}

async fn place(redis: &Redis, number: u128) -> Admission {
    let admission = ask(redis, vec![ordering(redis, number, 2)]).await.remove(0);
    if admission == Admission::Admitted {
        ask(redis, vec![placed(redis, number, MINUTE)]).await;
    }
    admission
}

#[tokio::test]
async fn open_orders_are_bounded_until_one_is_settled_and_a_repeat_is_no_new_one() {
    let redis = redis().await;
    assert_eq!(place(&redis, 1).await, Admission::Admitted);
    assert_eq!(place(&redis, 2).await, Admission::Admitted);
    match place(&redis, 3).await {
        Admission::Open { bucket: 0, wait } => assert!(wait > MINUTE / 2 && wait <= MINUTE, "{wait:?}"),
        other => panic!("two are open: {other:?}"),
    }
    assert_eq!(place(&redis, 1).await, Admission::Admitted, "it is one of the two");
    ask(&redis, vec![settled(&redis, 1)]).await;
    assert_eq!(place(&redis, 3).await, Admission::Admitted);
    assert!(matches!(place(&redis, 4).await, Admission::Open { .. }));
}

#[tokio::test]
async fn an_order_counts_as_open_for_its_time_alone() {
    let redis = redis().await;
    let short = Duration::from_millis(200);
    let second = ordering(&redis, 2, 1);
    let answers = ask(&redis, vec![placed(&redis, 1, short), second.clone()]).await;
    assert!(matches!(answers[1], Admission::Open { wait, .. } if wait <= short), "{answers:?}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(ask(&redis, vec![second]).await, [Admission::Admitted]);
}

#[tokio::test]
async fn a_late_record_of_a_settled_order_does_not_open_it_again() {
    let redis = redis().await;
    let late = vec![placed(&redis, 1, MINUTE), settled(&redis, 1), placed(&redis, 1, MINUTE), ordering(&redis, 2, 1)];
    assert_eq!(ask(&redis, late).await, [Admission::Admitted; 4]);
    let later = vec![placed(&redis, 2, MINUTE), settled(&redis, 2), placed(&redis, 3, MINUTE), ordering(&redis, 4, 1)];
    let answers = ask(&redis, later).await;
    assert!(matches!(answers[3], Admission::Open { .. }), "the third is open: {answers:?}");
}

#[tokio::test]
async fn a_settled_order_is_forgotten_with_time_and_an_open_one_stays() {
    let server = stampede_testkit::OwnRedis::start(&[]).await.unwrap();
    let redis = Redis::connect(RedisConfig { url: server.url(), key_prefix: String::new() }).await.unwrap();
    let short = Duration::from_millis(100);
    ask(&redis, vec![placed(&redis, 1, MINUTE), settled_for(&redis, 1, short)]).await;
    stampede_testkit::eventually("the key is gone", || async { (server.keys().await.unwrap() == 0).then_some(()) })
        .await;

    ask(&redis, vec![placed(&redis, 2, MINUTE), placed(&redis, 1, MINUTE), settled_for(&redis, 1, short)]).await;
    tokio::time::sleep(2 * short).await;
    let answers = ask(&redis, vec![placed(&redis, 1, MINUTE), ordering(&redis, 3, 2)]).await;
    assert!(matches!(answers[1], Admission::Open { .. }), "both are open: {answers:?}");
}

#[tokio::test]
async fn an_order_that_counts_for_less_time_ends_neither_an_open_one_nor_what_is_known_of_a_settled_one() {
    let redis = redis().await;
    let short = Duration::from_millis(100);
    let wait_for_the_short_one = async |most| {
        stampede_testkit::eventually("the last order counts no longer", || async {
            let answer = ask(&redis, vec![ordering(&redis, 9, most)]).await.remove(0);
            (answer == Admission::Admitted).then_some(())
        })
        .await;
    };
    ask(&redis, vec![placed(&redis, 1, MINUTE), settled(&redis, 1), placed(&redis, 2, short)]).await;
    wait_for_the_short_one(1).await;
    let answers = ask(&redis, vec![placed(&redis, 1, MINUTE), ordering(&redis, 9, 1)]).await;
    assert_eq!(answers, [Admission::Admitted; 2], "the first one is settled");

    ask(&redis, vec![placed(&redis, 3, MINUTE), placed(&redis, 4, short)]).await;
    wait_for_the_short_one(2).await;
    let answers = ask(&redis, vec![ordering(&redis, 9, 1)]).await;
    assert!(matches!(answers[0], Admission::Open { .. }), "the third one is open: {answers:?}");
}

#[tokio::test]
async fn a_revoked_login_is_read_by_all_and_once() {
    let redis = redis().await;
    let now = gate::epoch(&redis, "fresh").await.unwrap().now;
    let read = async |since| gate::revoked_since(&redis, since).await.unwrap();
    assert!(read(Timestamp::from_micros(0)).await.0.is_empty());
    for _ in 0..3 {
        assert!(gate::revoke(&redis, "login-1", now.plus(MINUTE)).await.unwrap());
    }
    let (revoked, since) = read(Timestamp::from_micros(0)).await;
    let logins: Vec<_> = revoked.iter().map(|one| one.login.as_str()).collect();
    assert_eq!(logins, ["login-1"]);
    assert!(revoked[0].until >= now.plus(MINUTE) && revoked[0].until <= now.plus(2 * MINUTE), "{revoked:?}");
    assert!(gate::revoke(&redis, "login-2", now.plus(MINUTE)).await.unwrap());
    let (later, _) = read(since).await;
    assert_eq!(later.last().map(|one| one.login.as_str()), Some("login-2"));
}

#[tokio::test]
async fn a_revocation_is_forgotten_when_its_tokens_have_expired() {
    let redis = redis().await;
    let long_ago = Timestamp::from_micros(1_000_000);
    assert!(gate::revoke(&redis, "old", long_ago).await.unwrap());
    let later = gate::epoch(&redis, "fresh").await.unwrap().now.plus(MINUTE);
    assert!(gate::revoke(&redis, "new", later).await.unwrap());
    let (revoked, _) = gate::revoked_since(&redis, Timestamp::from_micros(0)).await.unwrap();
    assert_eq!(revoked.iter().map(|one| one.login.as_str()).collect::<Vec<_>>(), ["new"]);
}

#[tokio::test]
async fn an_owner_of_whom_orders_are_settled_and_none_is_placed_has_no_set_that_grows() {
    let server = stampede_testkit::OwnRedis::start(&[]).await.unwrap();
    let redis = Redis::connect(RedisConfig { url: server.url(), key_prefix: String::new() }).await.unwrap();
    ask(&redis, (0..5).map(|number| settled_for(&redis, number, Duration::from_millis(1))).collect()).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    ask(&redis, vec![settled(&redis, 5)]).await;
    let mut conn = redis::Client::open(server.admin_url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut conn).await.unwrap();
    let mut settled: Vec<usize> = Vec::new();
    for key in keys {
        settled.push(redis::cmd("ZCARD").arg(key).query_async(&mut conn).await.unwrap());
    }
    assert_eq!(settled, [1], "only the last one is remembered");
}
