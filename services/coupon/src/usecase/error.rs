//! Failures of MySQL, Redis and the batchers as the domain knows them.

use crate::domain::Failure;
use stampede_batch::BatchError;
use stampede_db::DbError;
use stampede_lua::RedisError;

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        if error.is_unreachable() {
            Self::Unreachable { server: "the database", cause: error.to_string().into() }
        } else {
            Self::Broken(error.to_string().into())
        }
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        match error {
            RedisError::Server(_) | RedisError::Pool(_) | RedisError::TimedOut(_) => {
                Self::Unreachable { server: "redis", cause: error.to_string().into() }
            }
            RedisError::Reply { .. } | RedisError::Refused(_) => Self::Broken(error.to_string().into()),
        }
    }
}

impl From<BatchError> for Failure {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Overloaded => Self::Overloaded,
            BatchError::Closed => Self::Broken(error.to_string().into()),
        }
    }
}
