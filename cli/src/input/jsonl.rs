//! Tasks as JSON lines: one object per line.

use std::borrow::Cow;
use std::fmt;

use delayline::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::task::{FIELDS, Fields, shown};

/// The line as serde reads it. The types of the values are checked afterwards, so that the error names the field.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object such as {\"after\": \"5s\", \"payload\": 1}")]
struct Object<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    after: Option<&'a RawValue>,
    #[serde(borrow, default)]
    at: Option<&'a RawValue>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    group: Option<&'a RawValue>,
    #[serde(borrow, default)]
    expires: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The fields of a line, or what is wrong with it.
pub(super) fn fields(line: &str) -> Result<Fields<'_>, String> {
    if line.trim_start().starts_with('[') {
        return Err("expected one object per line, found a JSON array (`jq -c '.[]'` turns an array into lines)".into());
    }
    let object: Object<'_> = serde_json::from_str(line).map_err(|e| match line.trim_start().bytes().next() {
        Some(b'{') if e.is_eof() => {
            "the object does not end on this line; expected one object per line (`jq -c .` writes it so)".to_owned()
        }
        Some(first) if !begins_json(first) => {
            format!("expected a JSON object, found {}; is it CSV? use --format csv", shown(line.trim()))
        }
        Some(_) | None => problem(&e),
    })?;
    Ok(Fields {
        id: text("id", object.id)?,
        after: match object.after.map(RawValue::get) {
            Some("0") => Some("0".into()),
            _ => text("after", object.after)?,
        },
        at: text("at", object.at)?,
        group: text("group", object.group)?,
        expires: text("expires", object.expires)?,
        payload: object.payload.map_or_else(|| b"null".to_vec(), |raw| compact(raw.get())),
    })
}

fn text<'a>(field: &str, value: Option<&'a RawValue>) -> Result<Option<Cow<'a, str>>, String> {
    let Some(value) = value.map(RawValue::get) else { return Ok(None) };
    let found = match value.as_bytes().first() {
        Some(b'"') => return serde_json::from_str::<Text<'_>>(value).map(|text| Some(text.0)).map_err(|e| problem(&e)),
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        // A number without a unit is the likely mistake with durations.
        _ if (field == "after" || field == "expires") && value.bytes().all(|b| b.is_ascii_digit()) => {
            return Err(format!("`{field}`: expected a string such as \"{value}s\" or \"{value}ms\", found {value}"));
        }
        Some(b'-') if field == "after" || field == "expires" => {
            return Err(format!("`{field}`: expected a duration such as \"5s\", not negative, found {value}"));
        }
        _ if field == "after" || field == "expires" => {
            return Err(format!("`{field}`: expected a duration such as \"5s\", found the number {value}"));
        }
        _ if field == "at" => {
            let (such_as, epoch) = ("\"2030-01-31T12:00:00Z\"", since_1970(value));
            return Err(format!("`at`: expected an RFC 3339 time such as {such_as}, found the number {value}{epoch}"));
        }
        _ => return Err(format!("`{field}`: expected a string, found the number {value}; write \"{value}\"")),
    };
    Err(format!("`{field}`: expected a string, found {found}"))
}

fn begins_json(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'{' | b'[' | b'"' | b'-' | b't' | b'f' | b'n')
}

/// The time that a number stands for if it counts from 1970, which is a common form in other programs.
fn since_1970(number: &str) -> String {
    let (unit, micros) = match number.parse::<i64>() {
        Ok(seconds @ 0..100_000_000_000) => ("seconds", seconds * 1_000_000),
        Ok(millis @ 100_000_000_000..100_000_000_000_000) => ("milliseconds", millis * 1_000),
        Ok(_) | Err(_) => return String::new(),
    };
    format!(" (as {unit} since 1970: \"{}\")", Timestamp::from_unix_micros(micros))
}

/// serde's message, for a reader who sees one line.
fn problem(e: &serde_json::Error) -> String {
    let text = e.to_string();
    let what = text.rfind(" at line ").map_or(text.as_str(), |at| &text[..at]);
    let what: Cow<'_, str> = match what.split_once(", expected one of ") {
        Some((unknown, _)) if unknown.starts_with("unknown field") => format!("{unknown}; expected {FIELDS}").into(),
        Some(_) | None => what.into(),
    };
    let kind = if e.is_data() { "" } else { "malformed JSON: " };
    format!("{kind}{what}{}", Column(e.column()))
}

struct Column(usize);

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { Ok(()) } else { write!(f, " (column {})", self.0) }
    }
}

/// The same JSON without white space between its parts. Numbers keep every digit, and objects the order of their keys.
fn compact(json: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for &byte in json.as_bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            in_string = byte == b'"';
        }
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_with_everything() {
        let line =
            r#" {"id":"a\u00e9","after":"5s","payload":{"b": [1.0, 1e400], "a":" \" x"},"group":"g","expires":"1h"}"#;
        let fields = fields(line).unwrap();
        assert_eq!(fields.id.as_deref(), Some("aé"));
        assert_eq!(fields.after.as_deref(), Some("5s"));
        assert_eq!(fields.group.as_deref(), Some("g"));
        assert_eq!(fields.expires.as_deref(), Some("1h"));
        assert_eq!(fields.payload, br#"{"b":[1.0,1e400],"a":" \" x"}"#);
    }

    #[test]
    fn null_is_as_good_as_nothing_and_0_needs_no_quotes() {
        let fields = fields(r#"{"after": 0, "id": null, "payload": null, "group": null}"#).unwrap();
        assert_eq!((fields.id, fields.group, fields.after.as_deref()), (None, None, Some("0")));
        assert_eq!(fields.payload, b"null");
    }

    #[test]
    fn what_is_wrong_is_named_without_a_line_number_of_its_own() {
        for (line, says) in [
            ("{", "the object does not end on this line; expected one object per line (`jq -c .` writes it so)"),
            ("hello", "expected a JSON object, found \"hello\"; is it CSV? use --format csv"),
            ("after,payload", "found \"after,payload\"; is it CSV? use --format csv"),
            ("\"hello", "malformed JSON: EOF while parsing a string"),
            (r#"{"after":"1s"} x"#, "malformed JSON: trailing characters"),
            ("5", "invalid type: integer `5`, expected an object such as"),
            (r#"[{"after":"1s"}]"#, "expected one object"),
            (r#"{"afer":"1s"}"#, "unknown field `afer`; expected `id`, `after`"),
            (r#"{"after":"1s","after":"2s"}"#, "duplicate field `after`"),
            (r#"{"after":5}"#, r#"`after`: expected a string such as "5s""#),
            (r#"{"after":-1}"#, r#"`after`: expected a duration such as "5s", not negative, found -1"#),
            (r#"{"after":1e3}"#, r#"`after`: expected a duration such as "5s", found the number 1e3"#),
            (
                r#"{"at":1700000000}"#,
                r#"found the number 1700000000 (as seconds since 1970: "2023-11-14T22:13:20.000Z")"#,
            ),
            (r#"{"at":1700000000000}"#, r#"(as milliseconds since 1970: "2023-11-14T22:13:20.000Z")"#),
            (r#"{"at":-1}"#, r#"`at`: expected an RFC 3339 time such as "2030-01-31T12:00:00Z", found the number -1"#),
            (r#"{"after":"1s","id":17}"#, r#"`id`: expected a string, found the number 17; write "17""#),
            (r#"{"after":"1s","group":["a"]}"#, "`group`: expected a string, found an array"),
            (r#"{"after":true}"#, "`after`: expected a string, found a boolean"),
            (r#"{"at":{}}"#, "`at`: expected a string, found an object"),
        ] {
            let e = fields(line).unwrap_err();
            assert!(e.contains(says) && !e.contains("at line"), "{line}: {e}");
        }
    }

    proptest! {
        #[test]
        fn a_payload_comes_through_as_the_same_value(
            key in ".*", text in ".*", number in any::<i64>(), spaces in "[ \t\r]{0,3}"
        ) {
            let value = serde_json::json!({ key: [text, number, null, { "x": true }] });
            let pretty = serde_json::to_string_pretty(&value).unwrap().replace('\n', &spaces);
            let line = format!("{{\"after\":\"1s\",{spaces}\"payload\":{pretty}}}");
            let read = fields(&line).unwrap().payload;
            prop_assert_eq!(read, serde_json::to_vec(&value).unwrap());
        }

        #[test]
        fn no_line_makes_it_panic(line in ".*") {
            let _ = fields(&line);
        }
    }
}
