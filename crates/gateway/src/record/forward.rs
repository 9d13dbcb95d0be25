//! Requests go on to the real server, answers to the build, and both into the recording.

use super::{
    bodies::{Counter, Writer},
    http::{self, Error, Late, Outgoing},
    recorder::Recorder,
};
use bytes::Bytes;
use fodder_model::recording::{Body, Exchange, Request, Response};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, StatusCode,
    body::{Frame, Incoming, SizeHint},
    header,
};
use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

/// One exchange. It gets into the recording when everybody is through with it, however that came.
pub(super) struct Pending {
    recorder: Arc<Recorder>,
    number: u64,
    request: Request,
    sent: Mutex<Counter>,
    response: Mutex<Option<Response>>,
}

impl Pending {
    pub(super) fn new(recorder: Arc<Recorder>, request: Request) -> Self {
        Pending { number: recorder.number(), recorder, request, sent: Mutex::default(), response: Mutex::default() }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut request = self.request.clone();
        request.body = self.sent.lock().unwrap_or_else(PoisonError::into_inner).body();
        let response = self.response.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.recorder.add(self.number, Exchange { request, response });
    }
}

/// What the build sends, on its way out.
pub(super) struct Upload {
    body: Incoming,
    pending: Arc<Pending>,
}

impl Upload {
    pub(super) fn new(body: Incoming, pending: Arc<Pending>) -> Self {
        Upload { body, pending }
    }
}

impl hyper::body::Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.pending.sent.lock().unwrap_or_else(PoisonError::into_inner).add(data);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What the server answers, on its way in.
struct Download {
    body: Incoming,
    /// `None` when writing has failed, or all is written.
    writer: Option<Writer>,
    expected: Option<u64>,
    has_ended: bool,
    late: Option<Late>,
    trailers: HeaderMap,
    /// The answer without its body.
    head: Response,
    pending: Arc<Pending>,
}

/// Begins to pass on an answer.
pub(super) fn download(mut response: hyper::Response<Incoming>, pending: Arc<Pending>) -> hyper::Response<Outgoing> {
    http::remove_hop_by_hop(response.headers_mut());
    let (parts, body) = response.into_parts();
    let recorder = Arc::clone(&pending.recorder);
    let reason = parts.extensions.get::<hyper::ext::ReasonPhrase>();
    let reason_text = reason.map(|reason| reason.as_bytes().iter().copied().map(char::from).collect());
    let head = Response {
        status: parts.status.as_u16(),
        reason: reason_text,
        headers: write_down(&parts.headers, &recorder),
        body: Body { sha256: String::new(), size: 0 },
        complete: false,
        trailers: Vec::new(),
    };
    let has_body =
        pending.request.method != "HEAD" && ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&parts.status);
    let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut answer = hyper::Response::new(());
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = parts.headers;
    if let Some(reason) = reason {
        answer.extensions_mut().insert(reason.clone());
    }
    let writer = recorder.start_body();
    let expected = if has_body { length } else { Some(0) };
    let trailers = HeaderMap::new();
    let body = Download { body, writer, expected, has_ended: false, late: None, trailers, head, pending };
    answer.map(|()| body.boxed_unsync())
}

fn write_down(headers: &HeaderMap, recorder: &Recorder) -> Vec<(String, String)> {
    let line = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
        let value = recorder.redactor.response_header(name.as_str(), &http::text(value));
        (name.as_str().to_owned(), value)
    };
    headers.iter().map(line).collect()
}

impl hyper::body::Body for Download {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(late) = &mut self.late {
            return late.poll(context);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            None => self.has_ended = true,
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref()
                    && let Some(Err(error)) = self.writer.as_mut().map(|writer| writer.write(data))
                {
                    self.writer = None;
                    self.pending.recorder.fail(error);
                }
                if let Some(trailers) = frame.trailers_ref() {
                    self.trailers = trailers.clone();
                    self.has_ended = true;
                }
            }
            Some(Err(_)) => {}
        }
        match frame {
            None => Poll::Ready(None),
            Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
            Some(Err(error)) => self.late.insert(Late::new(http::failed(error))).poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        // Whoever knows how long a body is need not wait for its end.
        let complete = self.has_ended || self.body_is_over() || self.expected == Some(writer.size);
        match writer.finish() {
            Ok(body) => {
                let trailers = write_down(&self.trailers, &self.pending.recorder);
                let response = Response { body, complete, trailers, ..self.head.clone() };
                *self.pending.response.lock().unwrap_or_else(PoisonError::into_inner) = Some(response);
            }
            Err(error) => self.pending.recorder.fail(error),
        }
    }
}

impl Download {
    fn body_is_over(&self) -> bool {
        hyper::body::Body::is_end_stream(&self.body)
    }
}
