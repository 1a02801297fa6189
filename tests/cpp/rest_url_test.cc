#include "protocol/rest_url.h"

#include <gtest/gtest.h>

namespace msserving {
namespace {

void ExpectUrl(std::string_view target, std::string_view servable, uint64_t version, std::string_view method) {
  RestUrl url;
  url.version = 99;
  const Status status = ParseRestUrl(target, &url);
  EXPECT_TRUE(status.ok()) << target << ": " << status.message();
  EXPECT_EQ(url.servable, servable) << target;
  EXPECT_EQ(url.version, version) << target;
  EXPECT_EQ(url.method, method) << target;
}

void ExpectError(std::string_view target, ErrorKind kind, std::string_view token) {
  RestUrl url;
  const Status status = ParseRestUrl(target, &url);
  EXPECT_EQ(status.kind(), kind) << target;
  EXPECT_NE(status.message().find(token), std::string::npos) << target << ": " << status.message();
}

TEST(RestUrl, BothFormsAndNoVersion) {
  ExpectUrl("/model/add:predict", "add", 0, "predict");
  ExpectUrl("/model/add/version/3:predict", "add", 3, "predict");
  ExpectUrl("/version/3/model/add:predict", "add", 3, "predict");
  ExpectUrl("/model/add/version/0:predict", "add", 0, "predict");
}

TEST(RestUrl, NamesMayContainTheKeywords) {
  ExpectUrl("/model/my_model/version/2:predict", "my_model", 2, "predict");
  ExpectUrl("/model/model:model", "model", 0, "model");
  ExpectUrl("/model/version:version", "version", 0, "version");
  ExpectUrl("/model/version/version/7:version_info", "version", 7, "version_info");
  ExpectUrl("/version/1/model/conversion:model_version", "conversion", 1, "model_version");
}

TEST(RestUrl, QueryFragmentAndHostAreIgnored) {
  ExpectUrl("/model/add:predict?version=9&x=/model/b:c", "add", 0, "predict");
  ExpectUrl("/model/add:predict#part", "add", 0, "predict");
  ExpectUrl("http://127.0.0.1:1500/model/add/version/1:predict", "add", 1, "predict");
}

TEST(RestUrl, NamesArePercentDecoded) {
  ExpectUrl("/model/a%2Fb%3ac:do%20it", "a/b:c", 0, "do it");
  ExpectUrl("/model/%E5%8A%A0:predict", "\xE5\x8A\xA0", 0, "predict");
  ExpectError("/model/a%2:predict", ErrorKind::kInvalidInput, "'%'");
  ExpectError("/model/a:p%zz", ErrorKind::kInvalidInput, "'%'");
  ExpectError("/model/a:p%", ErrorKind::kInvalidInput, "'%'");
}

TEST(RestUrl, VersionsAreNumbersBelowTheLimit) {
  ExpectUrl("/model/add/version/4294967294:p", "add", 4294967294, "p");
  ExpectUrl("/model/add/version/007:p", "add", 7, "p");
  ExpectUrl("/model/add/version/1abc:p", "add", 1, "p");
  for (const char* version : {"4294967295", "4294967296", "99999999999999999999999999", "-1"}) {
    ExpectError("/model/add/version/" + std::string(version) + ":p", ErrorKind::kInvalidInput,
                "version number range failed");
  }
  for (const char* version : {"abc", "", "-", "v1"}) {
    ExpectError("/model/add/version/" + std::string(version) + ":p", ErrorKind::kInvalidInput, "is invalid");
  }
}

TEST(RestUrl, SaysWhatIsMissing) {
  ExpectError("/", ErrorKind::kServableUnavailable, "'model' is missing");
  ExpectError("", ErrorKind::kServableUnavailable, "does not begin");
  ExpectError("/version/1:predict", ErrorKind::kServableUnavailable, "'model' is missing");
  ExpectError("/models/add:predict", ErrorKind::kServableUnavailable, "unexpected 'models'");
  ExpectError("/model/add/extra:predict", ErrorKind::kServableUnavailable, "unexpected 'extra'");
  ExpectError("/model/add/model/b:predict", ErrorKind::kServableUnavailable, "unexpected 'model'");
  ExpectError("/model/add", ErrorKind::kInvalidInput, "method is missing");
  ExpectError("/model/add:", ErrorKind::kInvalidInput, "method is missing");
  ExpectError("/model/:predict", ErrorKind::kInvalidInput, "name is empty");
  ExpectError("/model//version/1:predict", ErrorKind::kInvalidInput, "name is empty");
}

}  // namespace
}  // namespace msserving
