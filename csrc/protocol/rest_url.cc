#include "protocol/rest_url.h"

namespace msserving {
namespace {

constexpr uint64_t kVersionLimit = UINT32_MAX;  // exclusive
constexpr std::string_view kForm =
    "; expected /model/<servable>[/version/<number>]:<method> or /version/<number>/model/<servable>:<method>";

Status Invalid(std::string_view what) {
  std::string message("URL: ");
  return {ErrorKind::kInvalidInput, std::move(message.append(what).append(kForm))};
}

Status NoSuchPath(std::string_view what, std::string_view path) {
  std::string message("URL '");
  message.append(Shorten(path)).append("': ").append(what).append(kForm);
  return {ErrorKind::kServableUnavailable, std::move(message)};
}

std::string_view PathOf(std::string_view target) {
  target = target.substr(0, target.find_first_of("?#"));
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (target.substr(0, scheme.size()) == scheme) {
      const size_t slash = target.find('/', scheme.size());
      return slash == std::string_view::npos ? std::string_view() : target.substr(slash);
    }
  }
  return target;
}

int HexValue(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  c = static_cast<char>(c | 0x20);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool PercentDecode(std::string_view text, std::string* out) {
  out->clear();
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out->push_back(text[i]);
      continue;
    }
    const int high = i + 2 < text.size() ? HexValue(text[i + 1]) : -1;
    const int low = i + 2 < text.size() ? HexValue(text[i + 2]) : -1;
    if (high < 0 || low < 0) {
      return false;
    }
    out->push_back(static_cast<char>(high * 16 + low));
    i += 2;
  }
  return true;
}

std::string_view TakeSegment(std::string_view* path) {
  const size_t slash = path->find('/');
  const std::string_view segment = path->substr(0, slash);
  path->remove_prefix(slash == std::string_view::npos ? path->size() : slash + 1);
  return segment;
}

Status ParseVersion(std::string_view text, uint64_t* version) {
  const bool negative = text.substr(0, 1) == "-";
  const size_t first = negative || text.substr(0, 1) == "+" ? 1 : 0;
  if (text.size() <= first || text[first] < '0' || text[first] > '9') {
    return Invalid("version '" + Shorten(text) + "' is invalid, it has to be a number");
  }
  uint64_t value = 0;
  for (size_t i = first; i < text.size() && text[i] >= '0' && text[i] <= '9' && value < kVersionLimit; ++i) {
    value = value * 10 + static_cast<uint64_t>(text[i] - '0');
  }
  if (value >= kVersionLimit || (negative && value > 0)) {
    return Invalid("version number range failed: '" + Shorten(text) + "' is not in 0 ... 4294967294");
  }
  *version = value;
  return Status::Ok();
}

}  // namespace

Status ParseRestUrl(std::string_view target, RestUrl* url) {
  url->version = 0;
  const std::string_view whole = PathOf(target);
  if (whole.empty() || whole.front() != '/') {
    return NoSuchPath("it does not begin with /", whole);
  }
  // The first ':' ends the address proper; names that have one or a '/' are percent-encoded.
  const size_t colon = whole.find(':');
  std::string_view path = whole.substr(1, colon == std::string_view::npos ? colon : colon - 1);
  bool has_model = false;
  bool has_version = false;
  while (!path.empty()) {
    const std::string_view keyword = TakeSegment(&path);
    const std::string_view value = TakeSegment(&path);
    if (keyword == "model" && !has_model) {
      has_model = true;
      if (!PercentDecode(value, &url->servable)) {
        return Invalid("'%' without two hexadecimal digits in the servable's name");
      }
      if (url->servable.empty()) {
        return Invalid("the servable's name is empty");
      }
    } else if (keyword == "version" && !has_version) {
      has_version = true;
      Status status = ParseVersion(value, &url->version);
      if (!status.ok()) {
        return status;
      }
    } else {
      return NoSuchPath("unexpected '" + Shorten(keyword) + "'", whole);
    }
  }
  if (!has_model) {
    return NoSuchPath("the keyword 'model' is missing", whole);
  }
  if (colon == std::string_view::npos || colon + 1 == whole.size()) {
    return Invalid("the method is missing, ':<method>' has to follow the servable's name or version");
  }
  if (!PercentDecode(whole.substr(colon + 1), &url->method)) {
    return Invalid("'%' without two hexadecimal digits in the method's name");
  }
  return Status::Ok();
}

}  // namespace msserving
