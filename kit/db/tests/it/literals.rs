//! Both servers read the literals of a statement as the values that were written.

use proptest::{
    prelude::{Strategy, any},
    strategy::ValueTree,
    test_runner::{Config, RngSeed, TestRunner},
};
use sqlx::Row;
use stampede_db::{Literal, Statement};
use stampede_testkit::{Service, World};

/// Values of one statement, and statements.
const VALUES: usize = 200;
const STATEMENTS: usize = 10;

/// Values that have broken escapers before: quotes, escapes, ends of comments and strings, other alphabets, NUL.
const NASTY: [&str; 14] = [
    "",
    "'",
    "''",
    "\\",
    "\\'",
    "'; DROP TABLE t; -- ",
    "/* */",
    "%_",
    "\0",
    "\u{1f3c3}\u{200d}\u{2642}\u{fe0f}",
    "\u{202e}abc",
    "\u{bf}'",
    "a\nb\tc\rd\u{1a}e",
    "`\"",
];

/// Draws values at random. Prints the seed: given as `PROPTEST_RNG_SEED` it draws the same ones again.
fn generated<T>(strategy: impl Strategy<Value = T>) -> Vec<T> {
    let config = Config::default();
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => rand::random(),
    };
    println!("PROPTEST_RNG_SEED={seed}");
    let mut runner = TestRunner::new(Config { rng_seed: RngSeed::Fixed(seed), ..config });
    (0..VALUES * STATEMENTS).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

/// Reads values back from a SELECT that has them as literals.
async fn read_back<'a, L: Literal + Copy>(literals: &'a [L], check: impl Fn(usize, &sqlx::mysql::MySqlRow, &'a L)) {
    let db = World::new().unwrap().schema(Service::Event).await.unwrap();
    let mut conn = db.acquire().await.unwrap();
    for literals in literals.chunks(VALUES) {
        let mut select = Statement::new("SELECT ");
        let mut list = select.separated(", ");
        literals.iter().for_each(|literal| {
            list.push_bind(*literal);
        });
        let rows = select.fetch_rows(&mut conn).await.unwrap();
        literals.iter().enumerate().for_each(|(column, literal)| check(column, &rows[0], literal));
    }
}

#[tokio::test]
async fn any_text_comes_back_as_it_was() {
    let texts = generated(any::<String>());
    let texts: Vec<&str> = NASTY.into_iter().chain(texts.iter().map(String::as_str)).collect();
    read_back(&texts, |column, row, text| assert_eq!(row.get::<String, _>(column), **text)).await;
}

#[tokio::test]
async fn any_bytes_come_back_as_they_were() {
    let values = generated(any::<Vec<u8>>());
    let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
    read_back(&values, |column, row, bytes| assert_eq!(row.get::<Vec<u8>, _>(column), **bytes)).await;
}

#[tokio::test]
async fn any_number_comes_back_as_it_was() {
    let numbers: Vec<i64> = [i64::MIN, -1, 0, 1, i64::MAX].into_iter().chain(generated(any::<i64>())).collect();
    read_back(&numbers, |column, row, number| assert_eq!(row.get_unchecked::<i64, _>(column), *number)).await;
}
