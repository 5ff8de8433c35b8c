//! How a typed value becomes a task's payload, and back.

use std::any::type_name;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, ErrorKind, Result};

/// Turns values of one type into payloads and back.
///
/// ```
/// use delayline_core::{Bytes, Codec, Error, ErrorKind, Result};
///
/// /// Plain text, for queues that other languages read.
/// struct Text;
///
/// impl Codec<String> for Text {
///     fn encode(&self, value: &String) -> Result<Bytes> {
///         Ok(value.clone().into())
///     }
///     fn decode(&self, payload: &Bytes) -> Result<String> {
///         String::from_utf8(payload.to_vec())
///             .map_err(|e| Error::new(ErrorKind::Codec, "the payload is not UTF-8").with_source(e.utf8_error()))
///     }
/// }
/// ```
pub trait Codec<T>: Send + Sync + 'static {
    /// The payload for a value.
    ///
    /// # Errors
    /// [`Codec`](ErrorKind::Codec) for a value that has none.
    fn encode(&self, value: &T) -> Result<Bytes>;

    /// The value in a payload.
    ///
    /// # Errors
    /// [`Codec`](ErrorKind::Codec) for a payload that holds none. Its sentence must not quote the payload, because it is
    /// logged; its source may.
    fn decode(&self, payload: &Bytes) -> Result<T>;
}

/// JSON, by serde: what a queue uses unless told otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn encode(&self, value: &T) -> Result<Bytes> {
        let json = serde_json::to_vec(value).map_err(|e| {
            Error::new(ErrorKind::Codec, format!("a `{}` can't be written as JSON", type_name::<T>())).with_source(e)
        })?;
        Ok(json.into())
    }

    fn decode(&self, payload: &Bytes) -> Result<T> {
        serde_json::from_slice(payload).map_err(|e| {
            // serde's own sentence quotes the payload, so it only goes into the source.
            let problem = match e.classify() {
                serde_json::error::Category::Data => "of another shape",
                serde_json::error::Category::Eof => "cut short",
                serde_json::error::Category::Syntax | serde_json::error::Category::Io => "no JSON",
            };
            let at = format!("line {} column {}", e.line(), e.column());
            Error::new(ErrorKind::Codec, format!("the payload is no `{}`: {problem}, at {at}", type_name::<T>()))
                .with_source(e)
        })
    }
}

/// Bytes as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

impl Codec<Bytes> for Raw {
    fn encode(&self, value: &Bytes) -> Result<Bytes> {
        Ok(value.clone())
    }

    fn decode(&self, payload: &Bytes) -> Result<Bytes> {
        Ok(payload.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn a_value_survives_the_trip_and_an_error_does_not_quote_the_payload() {
        let payload = Codec::<(u32, String)>::encode(&Json, &(7, "exam".into())).unwrap();
        assert_eq!(Codec::<(u32, String)>::decode(&Json, &payload).unwrap(), (7, "exam".into()));

        let e = Codec::<u32>::decode(&Json, &Bytes::from_static(b"\"hunter2\"")).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Codec);
        assert!(!e.to_string().contains("hunter2"), "{e}");
        assert!(e.source().is_some_and(|s| s.to_string().contains("hunter2")), "the cause says what was found");
    }
}
