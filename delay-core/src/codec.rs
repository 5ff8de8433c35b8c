//! Encoding typed values as payloads, and decoding them.

use std::any::type_name;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, ErrorKind, Result};

/// Encodes values of one type as payloads, and decodes them.
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
    /// Encodes a value.
    ///
    /// # Errors
    /// [`Codec`](ErrorKind::Codec) for a value that can't be encoded.
    fn encode(&self, value: &T) -> Result<Bytes>;

    /// Decodes a payload.
    ///
    /// # Errors
    /// [`Codec`](ErrorKind::Codec) for a payload that can't be decoded. The message must not quote the payload, because
    /// it is logged. The source may quote it.
    fn decode(&self, payload: &Bytes) -> Result<T>;
}

/// JSON, through serde. This is the default codec of a queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn encode(&self, value: &T) -> Result<Bytes> {
        let json = serde_json::to_vec(value).map_err(|e| {
            Error::new(ErrorKind::Codec, format!("can't encode a `{}` as JSON", type_name::<T>())).with_source(e)
        })?;
        Ok(json.into())
    }

    fn decode(&self, payload: &Bytes) -> Result<T> {
        serde_json::from_slice(payload).map_err(|e| {
            // serde's message quotes the payload, so it only goes into the source.
            let problem = match e.classify() {
                serde_json::error::Category::Data => "unexpected type or value",
                serde_json::error::Category::Eof => "unexpected end",
                serde_json::error::Category::Syntax | serde_json::error::Category::Io => "invalid JSON",
            };
            let at = format!("line {} column {}", e.line(), e.column());
            Error::new(
                ErrorKind::Codec,
                format!("can't decode the payload as `{}`: {problem} at {at}", type_name::<T>()),
            )
            .with_source(e)
        })
    }
}

/// Passes bytes through unchanged.
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
