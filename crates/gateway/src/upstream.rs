//! Calling the real host, from this machine's own network.

use crate::ledger::Verdict;
use std::{io, net::SocketAddr, time::Duration};
use tokio::net::TcpStream;

/// How long a host may take to answer. The build's own patience is usually shorter.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why nobody was reached.
pub(crate) struct Failure {
    pub(crate) verdict: Verdict,
    pub(crate) reason: String,
}

pub(crate) async fn connect(target: SocketAddr) -> Result<TcpStream, Failure> {
    let failed = |verdict, reason: String| Failure { verdict, reason };
    match tokio::time::timeout(PATIENCE, TcpStream::connect(target)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(failed(Verdict::Refused, "nobody listens there".to_owned()))
        }
        Ok(Err(error)) => Err(failed(Verdict::Unreachable, error.to_string())),
        Err(_) => Err(failed(Verdict::Unreachable, format!("no answer in {} s", PATIENCE.as_secs()))),
    }
}
