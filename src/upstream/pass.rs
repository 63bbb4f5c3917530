//! Carries a request to the backend that is none of the gateway's business: streamed, and untouched.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use http_body::Body;

use super::forward::{Trace, explain};
use super::pool::Freshness;
use super::{Carried, ForwardError, Outgoing, Peer, Upstream};

/// A request on its way through the relay.
pub struct Passage<'a> {
    /// Its head as it arrived.
    pub head: &'a Parts,
    /// Its body.
    pub body: Outgoing,
    /// Who sent it.
    pub peer: &'a Peer,
    /// Becomes `X-Request-Id`.
    pub request_id: &'a str,
}

impl Upstream {
    /// Passes a request on, and returns the head of the answer with its body still arriving.
    ///
    /// Has no limit of time but that on connecting; the caller sets one, and may drop this at any point. Nothing is
    /// sent twice, except what never left: a request that met a stale connection goes out on a new one.
    ///
    /// To an answer of 101, `hyper::upgrade::on` gives the connection; the answer's body must be kept until it did.
    pub async fn pass(&self, passage: Passage<'_>) -> Result<Response<Carried>, ForwardError> {
        let Passage { head, mut body, peer, request_id } = passage;
        let bodyless = body.is_end_stream();
        let mut freshness = Freshness::Reused;
        loop {
            let mut request = Request::new(body);
            *request.method_mut() = head.method.clone();
            *request.uri_mut() = self.rules.uri(&head.uri);
            *request.headers_mut() = self.rules.relayed(head, peer, request_id);
            if !bodyless && !request.headers().contains_key(CONTENT_LENGTH) {
                // hyper would say so of its own accord, but for GET, HEAD and CONNECT: there it leaves the body out.
                let chunked = HeaderValue::from_static("chunked");
                request.headers_mut().insert(TRANSFER_ENCODING, chunked);
            }
            let slot = self.pool.slot().await?;
            let mut lent = self.pool.lend(slot, freshness).await?;
            let mut refusal = match lent.send(request).await {
                Ok(response) => {
                    lent.heard(&response);
                    return Ok(response.map(|body| Carried::new(body, lent)));
                }
                Err(refusal) => refusal,
            };
            let written = lent.wire().seal();
            lent.lost();
            let unused =
                refusal.take_message().map(Request::into_body).or(bodyless.then(Outgoing::empty));
            body = match unused {
                Some(unused) if lent.is_reused() && !written => unused,
                _ => {
                    return Err(explain(
                        refusal,
                        Trace { written, interim: false },
                        lent.address(),
                    ));
                }
            };
            freshness = Freshness::New;
        }
    }
}
