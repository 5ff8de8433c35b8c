//! TLS to the broker: what a build without it refuses, and what is done before a connection.

use delayline_backend_kit::options::bad;
use delayline_backend_kit::{ExposedPassword, tls};
use delayline_core::Result;
use lapin::tcp::OwnedTLSConfig;
use lapin::uri::{AMQPScheme, AMQPUri, AMQPUserInfo};

/// Whether this build has TLS. The driver without TLS connects to `amqps://` unencrypted, and says nothing.
const BUILT: bool = cfg!(any(feature = "tls-ring", feature = "tls-aws-lc-rs"));

/// Whether connections are over TLS.
pub(super) fn is_used(uri: &AMQPUri) -> bool {
    uri.scheme == AMQPScheme::AMQPS
}

/// Checks that this build has TLS where the URL needs it, and that certificates can be read and are used.
///
/// # Errors
/// [`Config`](delayline_core::ErrorKind::Config).
pub(super) fn check(uri: &AMQPUri, certificates: &OwnedTLSConfig) -> Result<()> {
    let OwnedTLSConfig { identity, cert_chain } = certificates;
    if is_used(uri) && !BUILT {
        return Err(tls::not_built("`amqps://`"));
    }
    if (identity.is_some() || cert_chain.is_some()) && !is_used(uri) {
        return Err(bad("certificates need an `amqps://` URL"));
    }
    if cert_chain.as_ref().is_some_and(|pem| !pem.contains("-----BEGIN CERTIFICATE-----")) {
        return Err(bad("`tls_roots` holds no certificate (PEM)"));
    }
    Ok(())
}

/// Call before each connection: installs rustls's provider for TLS, and warns of a password that is sent without. `server`
/// is for people.
pub(crate) fn prepare(uri: &AMQPUri, server: &str) {
    if is_used(uri) {
        tls::install_provider();
    } else if !is_known(&uri.authority.userinfo) {
        let host = &uri.authority.host;
        ExposedPassword { host, server, how: "unencrypted", instead: "`amqps://`" }.warn();
    }
}

/// Whether there is nothing secret in it: no password, or that of every fresh broker, which is the driver's default.
fn is_known(user: &AMQPUserInfo) -> bool {
    user.password.is_empty() || (user.username == "guest" && user.password == "guest")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RabbitConfig;

    #[test]
    fn certificates_need_tls() {
        let plain = RabbitConfig::from_url("amqp://localhost").unwrap();
        assert!(plain.clone().tls_roots("-----BEGIN CERTIFICATE-----").check().is_err());
        assert!(plain.tls_client("PEM", "PEM").check().is_err());
    }

    #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
    #[test]
    fn certificates_are_read() {
        for url in ["AMQPS://localhost", "amqps://localhost/", "amqps://localhost/%2F"] {
            let over_tls = RabbitConfig::from_url(url).unwrap();
            assert_eq!((over_tls.server().as_str(), over_tls.vhost()), ("localhost:5671", "/"), "{over_tls:?}");
            assert!(over_tls.clone().tls_roots("nothing").check().is_err());
            over_tls.tls_roots("-----BEGIN CERTIFICATE-----").check().unwrap();
        }
    }

    #[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
    #[test]
    fn clear_3_a_build_without_tls_names_its_features() {
        for url in ["amqps://me:hunter2@host", "AMQPS://me:hunter2@host/x?fallback_poll_interval=1s"] {
            let e = RabbitConfig::from_url(url).unwrap_err();
            assert!(e.kind() == delayline_core::ErrorKind::Config && e.message().contains("`tls-ring`"), "{e}");
            assert!(!format!("{e} {e:?}").contains("hunter2"), "{e:?}");
        }
    }

    #[test]
    fn the_default_password_is_no_secret() {
        let is_known = |url| is_known(&RabbitConfig::from_url(url).unwrap().uri.authority.userinfo);
        assert!(is_known("amqp://host") && is_known("amqp://guest:guest@host"));
        assert!(!is_known("amqp://guest:hunter2@host") && !is_known("amqp://me:guest@host"));
    }
}
