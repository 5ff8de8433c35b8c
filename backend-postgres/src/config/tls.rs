//! TLS to the server: what a build without it refuses, and what is done before a connection.

use delayline_backend_kit::{ExposedPassword, tls};
use delayline_core::{Error, Result};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::config::server::place;

/// Use of TLS, and what it verifies, as libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SslMode {
    /// Never use TLS.
    Disable,
    /// Use TLS only if the server insists. The driver does not try it, so this is the same as `Disable`.
    Allow,
    /// Use TLS if the server offers it, without verifying its certificate. The default.
    Prefer,
    /// Require TLS, without verifying the server's certificate.
    Require,
    /// Require TLS, and verify the server's certificate.
    VerifyCa,
    /// Require TLS, and verify the server's certificate and host name.
    VerifyFull,
}

impl From<SslMode> for PgSslMode {
    fn from(mode: SslMode) -> Self {
        match mode {
            SslMode::Disable => Self::Disable,
            SslMode::Allow => Self::Allow,
            SslMode::Prefer => Self::Prefer,
            SslMode::Require => Self::Require,
            SslMode::VerifyCa => Self::VerifyCa,
            SslMode::VerifyFull => Self::VerifyFull,
        }
    }
}

/// Whether this build has TLS.
const BUILT: bool = cfg!(any(feature = "tls-ring", feature = "tls-aws-lc-rs"));

/// libpq's options with certificates.
const CERTIFICATES: [&str; 3] = ["sslrootcert", "sslcert", "sslkey"];

/// The error for a server that an application's pool connects to over TLS, in a build without TLS.
pub(crate) fn not_built(place: &str) -> Error {
    tls::not_built(&format!("the `sslmode` of {place}"))
}

/// Checks that this build has TLS where the mode needs it. `prefer` and `allow` connect unencrypted in a build without TLS.
///
/// # Errors
/// [`Config`](delayline_core::ErrorKind::Config), with the features.
pub(super) fn check_mode(mode: PgSslMode) -> Result<()> {
    match mode {
        PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer => Ok(()),
        PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull if BUILT => Ok(()),
        PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull => {
            Err(tls::not_built(&format!("`sslmode={}`", name(mode))))
        }
    }
}

/// Checks that this build has TLS where there are certificates for it. The driver would leave them unread.
///
/// # Errors
/// [`Config`](delayline_core::ErrorKind::Config), with the features.
pub(super) fn check_certificates(given: bool) -> Result<()> {
    if given && !BUILT { Err(tls::not_built("a certificate (`sslrootcert`, `sslcert`, `sslkey`)")) } else { Ok(()) }
}

/// Whether a URL, as the driver is given it, has options with certificates.
pub(super) fn has_certificates(url: &str) -> bool {
    let (_, query) = url.split_once('?').unwrap_or((url, ""));
    query.split('&').any(|option| CERTIFICATES.contains(&option.split('=').next().unwrap_or(option)))
}

/// Call before each connection: installs rustls's provider where TLS may be used, and warns of a password that is exposed.
///
/// The driver (sqlx 0.9) does not ask for the installed provider when it speaks TLS, but takes ring's if it is built with
/// it, else AWS-LC's. It asks when it checks certificates with `sslmode=verify-ca`.
pub(crate) fn prepare(server: &PgConnectOptions) {
    let mode = server.get_ssl_mode();
    let how = match mode {
        // The driver does not try TLS with `allow`.
        PgSslMode::Disable | PgSslMode::Allow => "unencrypted",
        PgSslMode::Prefer | PgSslMode::Require => {
            tls::install_provider();
            "without a check of the server's certificate"
        }
        PgSslMode::VerifyCa | PgSslMode::VerifyFull => return tls::install_provider(),
    };
    if server.get_socket().is_none() && has_password(server) {
        let (host, server) = (server.get_host(), &place(server));
        ExposedPassword {
            host,
            server,
            how: &format!("{how} (`sslmode={}`)", name(mode)),
            instead: "`sslmode=verify-full`",
        }
        .warn();
    }
}

/// Whether there is a password: from the URL, the environment or `~/.pgpass`. The driver tells it only as a part of a URL.
/// It panics while making one of a user's or host's name that does not fit into a URL, so other names are set.
fn has_password(server: &PgConnectOptions) -> bool {
    let nameless = server.clone().username("user").host("host").database("database");
    nameless.to_url_lossy().password().is_some_and(|password| !password.is_empty())
}

fn name(mode: PgSslMode) -> &'static str {
    match mode {
        PgSslMode::Disable => "disable",
        PgSslMode::Allow => "allow",
        PgSslMode::Prefer => "prefer",
        PgSslMode::Require => "require",
        PgSslMode::VerifyCa => "verify-ca",
        PgSslMode::VerifyFull => "verify-full",
    }
}

#[cfg(test)]
mod tests {
    use delayline_core::ErrorKind;

    use super::*;
    use crate::config::PostgresConfig;

    /// What can't do without TLS.
    const INSISTING: [&str; 7] = [
        "postgres://me:hunter2@host?sslmode=require",
        "postgres://me:hunter2@host?sslmode=verify-ca&pooler=on",
        "postgres://me:hunter2@host?sslmode=verify-full&sslrootcert=/ca.pem",
        "postgres://me:hunter2@host?sslrootcert=/ca.pem",
        "postgres://me:hunter2@host?sslcert=/me.pem&sslkey=/me.key",
        "postgres://me:hunter2@host?listen_url=postgres://me:hunter2@other?sslmode%3Drequire",
        "postgres://me:hunter2@host?listen_url=postgres://me:hunter2@other?sslcert%3D/me.pem",
    ];

    #[test]
    fn what_does_not_insist_on_tls_is_taken_by_every_build() {
        for mode in ["disable", "allow", "prefer"] {
            PostgresConfig::from_url(&format!("postgres://host?sslmode={mode}")).unwrap();
        }
        // Nobody listens there.
        PostgresConfig::from_url("postgres://host?listen=off&listen_url=postgres://other?sslmode%3Drequire").unwrap();
    }

    #[test]
    fn clear_3_what_insists_on_tls_is_taken_where_there_is_some() {
        let methods = [
            PostgresConfig::from_url("postgres://host").unwrap().ssl_mode(SslMode::Require),
            PostgresConfig::from_url("postgres://host").unwrap().tls_roots("PEM"),
            PostgresConfig::from_url("postgres://host").unwrap().tls_client("PEM", "PEM"),
        ];
        let read = INSISTING.iter().map(|url| PostgresConfig::from_url(url).map(drop));
        for read in read.chain(methods.iter().map(|config| config.check().map(drop))) {
            assert_eq!(read.is_ok(), BUILT);
            if let Err(e) = read {
                assert!(e.kind() == ErrorKind::Config && e.message().contains("`tls-ring`"), "{e}");
                assert!(!format!("{e} {e:?}").contains("hunter2"), "{e:?}");
            }
        }
    }

    #[test]
    fn a_password_is_found_whatever_the_names() {
        let server = PgConnectOptions::new_without_pgpass().host("::1").username("a:b/c@d").database("a?b#c");
        assert!(!has_password(&server) || std::env::var("PGPASSWORD").is_ok());
        assert!(
            has_password(&server.clone().password("hunter2")) && has_password(&server.socket("/run").password("h:/@"))
        );
    }
}
