//! URLs and command lines without passwords, for messages and reports.

/// A URL without its password, and without its options, which may contain another one.
pub(crate) fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.split('?').next().unwrap_or_default().to_owned();
    };
    // A password may contain any of these characters, even unescaped; so the last `@` counts.
    let (user, place) = rest.rsplit_once('@').unwrap_or(("", rest));
    let user = user.split(':').next().unwrap_or_default();
    let place = place.split(['?', '#']).next().unwrap_or_default();
    let at = if user.is_empty() { "" } else { "@" };
    format!("{scheme}://{user}{at}{place}")
}

/// A command line that can be pasted into a shell, its URLs redacted.
pub(crate) fn command_line(arguments: impl IntoIterator<Item = String>) -> String {
    let shown = arguments.into_iter().enumerate().map(|(i, argument)| match i {
        0 => argument.rsplit('/').next().unwrap_or_default().to_owned(),
        _ => {
            let pieces: Vec<String> = argument
                .split(',')
                .map(|piece| if piece.contains("://") { redacted(piece) } else { piece.to_owned() })
                .collect();
            quoted(&pieces.join(","))
        }
    });
    shown.collect::<Vec<_>>().join(" ")
}

fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=:/.,@%+".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        for (url, shown) in [
            ("memory:", "memory:"),
            ("memory:?max_tasks=5", "memory:"),
            ("redis://localhost/2", "redis://localhost/2"),
            ("redis://:secret@host:1", "redis://host:1"),
            ("postgres://me:se@c/r?et@host/db?password=secret&schema=x", "postgres://me@host/db"),
            ("amqp://guest:secret@h/%2f?namespace=x", "amqp://guest@h/%2f"),
            ("--backends=redis://u:secret@h", "--backends=redis://u@h"),
        ] {
            assert_eq!(redacted(url), shown);
        }
    }

    #[test]
    fn a_command_line_can_be_pasted() {
        let arguments = [
            "/usr/bin/delayline",
            "bench",
            "--backends",
            "memory:,redis://:secret@h,amqp://a:secret@h",
            "--report",
            "my dir",
        ];
        let shown = "delayline bench --backends memory:,redis://h,amqp://a@h --report 'my dir'";
        assert_eq!(command_line(arguments.map(str::to_owned)), shown);
    }
}
