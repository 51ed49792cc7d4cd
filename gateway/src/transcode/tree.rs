//! Parses JSON to trees that keep duplicate names of an object, which a map would lose.

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use std::{borrow::Cow, fmt};

/// The names and values of an object, as they were written.
pub type Fields<'b> = Vec<(Cow<'b, str>, Json<'b>)>;

/// A value of a JSON text. Texts without escapes are borrowed from it.
#[derive(Debug, Clone, PartialEq)]
pub enum Json<'b> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'b, str>),
    List(Vec<Json<'b>>),
    Object(Fields<'b>),
}

impl<'b> Json<'b> {
    /// Reads a whole text.
    pub fn parse(text: &'b [u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(text)
    }

    /// Converts to the value of the library; `None` if an object in it has a duplicate name.
    pub fn into_value(self) -> Option<Value> {
        Some(match self {
            Json::Null => Value::Null,
            Json::Bool(bool) => Value::Bool(bool),
            Json::Number(number) => Value::Number(number),
            Json::Text(text) => Value::String(text.into_owned()),
            Json::List(items) => Value::Array(items.into_iter().map(Json::into_value).collect::<Option<_>>()?),
            Json::Object(fields) => {
                let mut object = Map::new();
                for (name, value) in fields {
                    if object.insert(name.into_owned(), value.into_value()?).is_some() {
                        return None;
                    }
                }
                Value::Object(object)
            }
        })
    }
}

/// The name of a field.
#[derive(Deserialize)]
struct Name<'b>(#[serde(borrow)] Cow<'b, str>);

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Number::from_f64(value).map(Json::Number).ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut object = Vec::new();
        while let Some((Name(name), value)) = fields.next_entry()? {
            object.push((name, value));
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_text_is_read_as_it_is_written() {
        let text = br#"{"a":[null,true,-1,18446744073709551615,1.5,"b\n"],"c":{}}"#;
        let expected = json!({"a": [null, true, -1, u64::MAX, 1.5, "b\n"], "c": {}});
        assert_eq!(Json::parse(text).unwrap().into_value(), Some(expected));
    }

    #[test]
    fn a_name_that_is_given_twice_is_kept_twice() {
        let Json::Object(fields) = Json::parse(br#"{"a":1,"a":2}"#).unwrap() else { panic!("it is an object") };
        assert_eq!(fields.len(), 2);
        for text in [r#"{"a":1,"a":2}"#, r#"{"b":[{"a":1,"a":1}]}"#, r#"{"a":1,"\u0061":2}"#] {
            assert_eq!(Json::parse(text.as_bytes()).unwrap().into_value(), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_not_read() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        for text in ["", "{", "{} {}", "{'a':1}", "{a:1}", "01", "+1", "1e999", "\"\u{1}\"", &deep] {
            assert!(Json::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Json::parse(b"\"\xff\"").is_err());
    }
}
