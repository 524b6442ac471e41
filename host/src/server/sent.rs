//! An input as it was sent: parts of it may still lie behind URLs.
//!
//! Owns the step from there to an [`Input`], which has bytes alone, so that no
//! URL can reach a guest. Who is asked, and how, is `fetch`'s.

use super::request::InputError;
use super::status::Outcome;
use crate::call::{Deadline, End, Input, Part, Value};
use crate::fetch::{FetchError, Fetcher, Media};
use crate::limits::limit;
use crate::proto::clarifai::api;
use futures_util::StreamExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// URLs of one request. Each may make somebody else work.
pub(super) const URLS_MAX: usize = 256;

/// URLs of one request that are fetched at a time.
const FETCHES_MAX: usize = 4;

/// An input whose parts may lie behind URLs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sent {
    pub(crate) id: String,
    pub(crate) parts: Vec<SentPart>,
}

/// One of its parts, under its path.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SentPart {
    pub(crate) name: String,
    pub(crate) content: Content,
}

/// What a part is, or where, or why it is not to be had.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    Here(Value),
    Behind { media: Media, url: String },
    Lost(FetchError),
}

/// What fetches for one call, and until when.
#[derive(Debug, Clone)]
pub(super) struct Fetching {
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) deadline: Deadline,
}

impl Content {
    pub(super) fn of_text(text: api::Text) -> Result<Self, InputError> {
        Self::of(Media::Text, text.url, text.raw.is_empty(), || Value::Text(text.raw))
    }

    pub(super) fn of_image(image: api::Image) -> Result<Self, InputError> {
        Self::of(Media::Image, image.url, image.base64.is_empty(), || Value::Image(image.base64))
    }

    pub(super) fn of_audio(audio: api::Audio) -> Result<Self, InputError> {
        Self::of(Media::Audio, audio.url, audio.base64.is_empty(), || Value::Audio(audio.base64))
    }

    pub(super) fn of_video(video: api::Video) -> Result<Self, InputError> {
        Self::of(Media::Video, video.url, video.base64.is_empty(), || Value::Video(video.base64))
    }

    fn of(
        media: Media,
        url: String,
        is_empty: bool,
        value: impl FnOnce() -> Value,
    ) -> Result<Self, InputError> {
        match (url.is_empty(), is_empty) {
            (true, _) => Ok(Self::Here(value())),
            (false, true) => Ok(Self::Behind { media, url }),
            (false, false) => Err(InputError::UrlAndBytes { media }),
        }
    }
}

impl Sent {
    /// The input, where nothing of it lies behind a URL any more.
    pub(crate) fn whole(self) -> Result<Input, InputError> {
        let whole = |part: SentPart| match part.content {
            Content::Here(value) => Ok(Part { name: part.name, value }),
            Content::Behind { .. } => Err(InputError::UrlNotTaken),
            Content::Lost(error) => Err(error.into()),
        };
        let parts = self.parts.into_iter().map(whole).collect::<Result<_, _>>()?;
        Ok(Input { id: self.id, parts })
    }
}

impl Fetching {
    /// The inputs with bytes in place of URLs. One that fails fails alone; the
    /// deadline ends all of them.
    ///
    /// What the URLs of a request lead to is, together, no more than one may:
    /// they are served in their order, and those that no longer fit fail.
    pub(super) async fn all(
        &self,
        mut inputs: Vec<Result<Sent, InputError>>,
    ) -> Result<Vec<Result<Input, InputError>>, Outcome> {
        let wanted: Vec<Wanted<'_>> = inputs
            .iter_mut()
            .flatten()
            .flat_map(|sent| &mut sent.parts)
            .filter_map(wanted)
            .collect();
        if wanted.len() > limit("urls", URLS_MAX) {
            return Err(Outcome::too_many_urls());
        }
        if !wanted.is_empty() {
            let deadline = self.deadline.instant().into();
            tokio::time::timeout_at(deadline, self.bring(wanted))
                .await
                .map_err(|_| Outcome::from(&End::DeadlinePassed))?;
        }
        Ok(inputs.into_iter().map(|input| input.and_then(Sent::whole)).collect())
    }

    async fn bring(&self, wanted: Vec<Wanted<'_>>) {
        let bytes_max = limit("url_bytes_together", self.fetcher.body_bytes_max());
        let bytes_left = AtomicU64::new(bytes_max);
        let fetch = |Wanted { media, url, place }| {
            let bytes_left = &bytes_left;
            async move {
                let bytes_max = bytes_left.load(Ordering::Relaxed);
                (media, self.fetcher.fetch(&url, media, bytes_max).await, place)
            }
        };
        let fetches: Vec<_> = wanted.into_iter().map(fetch).collect();
        // In their order, so that the same ones fail however fast each comes.
        let fetches_max = limit("fetches_of_request", FETCHES_MAX);
        let mut fetched = futures_util::stream::iter(fetches).buffered(fetches_max);
        while let Some((media, bytes, place)) = fetched.next().await {
            let value = charged(&bytes_left, bytes).and_then(|bytes| value(media, bytes));
            *place = match value {
                Ok(value) => Content::Here(value),
                Err(error) => Content::Lost(error),
            };
        }
    }
}

/// A URL, and where its content goes.
struct Wanted<'a> {
    media: Media,
    url: String,
    place: &'a mut Content,
}

fn wanted(part: &mut SentPart) -> Option<Wanted<'_>> {
    let place = &mut part.content;
    match place {
        Content::Behind { media, url } => {
            Some(Wanted { media: *media, url: std::mem::take(url), place })
        }
        Content::Here(_) | Content::Lost(_) => None,
    }
}

/// What came, if it still fits. Told as how much was left when it was its turn,
/// though the fetch began when there was more.
fn charged(
    bytes_left: &AtomicU64,
    fetched: Result<Vec<u8>, FetchError>,
) -> Result<Vec<u8>, FetchError> {
    let bytes_max = bytes_left.load(Ordering::Relaxed);
    let over = FetchError::TooLarge { bytes_max };
    let bytes = match fetched {
        Err(FetchError::TooLarge { .. }) => return Err(over),
        fetched => fetched?,
    };
    let left = u64::try_from(bytes.len()).ok().and_then(|length| bytes_max.checked_sub(length));
    bytes_left.store(left.ok_or(over)?, Ordering::Relaxed);
    Ok(bytes)
}

fn value(media: Media, bytes: Vec<u8>) -> Result<Value, FetchError> {
    Ok(match media {
        Media::Text => Value::Text(String::from_utf8(bytes).map_err(|_| FetchError::NotUtf8)?),
        Media::Image => Value::Image(bytes.into()),
        Media::Audio => Value::Audio(bytes.into()),
        Media::Video => Value::Video(bytes.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn fetching() -> Fetching {
        let deadline = Deadline::after(Duration::from_secs(60));
        Fetching { fetcher: Arc::new(Fetcher::off()), deadline }
    }

    fn sent(id: &str, urls: &[&str]) -> Result<Sent, InputError> {
        let part = |url: &&str| SentPart {
            name: "text".to_owned(),
            content: Content::Behind { media: Media::Text, url: (*url).to_owned() },
        };
        Ok(Sent { id: id.to_owned(), parts: urls.iter().map(part).collect() })
    }

    fn texts(input: &Input) -> Vec<&str> {
        fn text(part: &Part) -> &str {
            match &part.value {
                Value::Text(text) => text,
                other => panic!("{other:?}"),
            }
        }
        input.parts.iter().map(text).collect()
    }

    #[tokio::test]
    async fn a_url_that_fails_fails_its_own_input_alone() {
        let inputs = vec![
            sent("a", &["data:,one", "data:,two"]),
            Err(InputError::Empty),
            sent("c", &["data:,one", "https://h.example/two"]),
            sent("d", &["data:,%FF"]),
            sent("e", &["data:,five"]),
        ];
        let whole = fetching().all(inputs).await.unwrap();
        assert_eq!(texts(whole[0].as_ref().unwrap()), ["one", "two"]);
        assert_eq!(whole[1], Err(InputError::Empty));
        let off = FetchError::Off { host: "h.example".into(), flag: "h.example".into() };
        assert_eq!(whole[2], Err(InputError::Url(off)));
        assert_eq!(whole[3], Err(InputError::Url(FetchError::NotUtf8)));
        assert_eq!(whole[4].as_ref().unwrap().id, "e");
    }

    /// The second no longer fits beside the first; the third, which is small,
    /// does.
    #[tokio::test]
    async fn what_the_urls_of_a_request_lead_to_is_bounded_together_and_in_their_order() {
        let bytes_max = usize::try_from(Fetcher::off().body_bytes_max()).unwrap();
        let large = format!("data:,{}", "x".repeat(bytes_max / 2 + 1));
        let inputs = vec![sent("a", &[&large]), sent("b", &[&large]), sent("c", &["data:,small"])];
        let whole = fetching().all(inputs).await.unwrap();
        assert!(whole[0].is_ok() && whole[2].is_ok());
        let left = u64::try_from(bytes_max / 2 - 1).unwrap();
        let over = FetchError::TooLarge { bytes_max: left };
        assert_eq!(whole[1], Err(InputError::Url(over)));
    }

    #[tokio::test]
    async fn a_request_of_too_many_urls_is_refused_as_a_whole() {
        let most = sent("a", &vec!["data:,x"; URLS_MAX]);
        assert!(fetching().all(vec![most.clone()]).await.unwrap()[0].is_ok());
        let refused = fetching().all(vec![most, sent("b", &["data:,x"])]).await.unwrap_err();
        assert_eq!(refused.reason, "TOO_MANY_URLS");
    }
}
