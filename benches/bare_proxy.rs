//! The least proxy that actix-web and awc make: a yardstick for `scripts/bench`, not a benchmark to run by itself.
//!
//! `bare_proxy PORT BACKEND_PORT`, both on 127.0.0.1, one worker. A bench target, so that ordinary builds skip it.

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, http::header, web};

async fn forward(
    request: HttpRequest,
    body: web::Payload,
    client: web::Data<awc::Client>,
    backend: web::Data<String>,
) -> actix_web::Result<HttpResponse> {
    let url = format!("{}{}", backend.as_str(), request.uri());
    let mut upstream = client.request(request.method().clone(), url).no_decompress();
    for (name, value) in request.headers() {
        if !matches!(*name, header::HOST | header::CONNECTION | header::CONTENT_LENGTH | header::TRANSFER_ENCODING) {
            upstream = upstream.append_header((name, value));
        }
    }
    let has_body =
        [header::CONTENT_LENGTH, header::TRANSFER_ENCODING].iter().any(|name| request.headers().contains_key(name));
    let sent = if has_body { upstream.send_stream(body) } else { upstream.send() };
    let answer = sent.await.map_err(actix_web::error::ErrorBadGateway)?;
    let mut response = HttpResponse::build(answer.status());
    for (name, value) in answer.headers() {
        if !matches!(*name, header::CONNECTION | header::CONTENT_LENGTH | header::TRANSFER_ENCODING) {
            response.append_header((name, value));
        }
    }
    let length = answer.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    Ok(match length {
        Some(length) => response.no_chunking(length).streaming(answer),
        None => response.streaming(answer),
    })
}

fn main() -> std::io::Result<()> {
    let mut ports = std::env::args().skip(1).filter_map(|argument| argument.parse::<u16>().ok());
    let (Some(port), Some(backend)) = (ports.next(), ports.next()) else {
        eprintln!("usage: bare_proxy PORT BACKEND_PORT (started by scripts/bench)");
        return Ok(());
    };
    let backend = web::Data::new(format!("http://127.0.0.1:{backend}"));
    let app = move || {
        let client = awc::Client::builder().disable_redirects().no_default_headers().finish();
        App::new().app_data(web::Data::new(client)).app_data(backend.clone()).default_service(web::route().to(forward))
    };
    actix_web::rt::System::new()
        .block_on(async move { HttpServer::new(app).workers(1).bind(("127.0.0.1", port))?.run().await })
}
