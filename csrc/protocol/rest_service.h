// REST over the dispatcher: requests as JSON in, replies as JSON out, errors as {"error_msg": ...} under the HTTP
// status of their kind, with Retry-After where trying again helps. Checks come in the documented order: verb, body,
// URL, JSON content.
// Besides: GET /health/live and /health/ready answer 200 or 503.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "net/http_server.h"
#include "protocol/json_request.h"
#include "protocol/rest_url.h"
#include "protocol/signature_store.h"
#include "servable/dispatcher.h"
#include "servable/health.h"

namespace msserving {

// One per event loop; every method on its thread. Both pointers must outlive it, and it the server that uses it.
class RestService final : public HttpService {
 public:
  RestService(Dispatcher* dispatcher, HealthSource* health);
  ~RestService();
  RestService(const RestService&) = delete;

  void OnRequest(HttpCall* call) override;
  void OnCancelled(HttpCall* call) override;
  std::string ErrorBody(int status, std::string_view reason) override;

 private:
  class Pending;

  void Predict(HttpCall* call);
  // Everything up to Submit(); the body comes before the URL, whoever is wrong.
  Status Decode(HttpCall* call, MethodTarget* target);
  void ReplyError(HttpCall* call, ErrorKind kind, std::string_view message);
  bool AnswerHealth(HttpCall* call);
  Pending* Acquire();

  Dispatcher* dispatcher_;
  HealthSource* health_;
  SignatureStore signatures_;
  JsonRequestParser parser_;
  RequestInstances instances_;
  RestUrl url_;
  std::deque<Pending> pending_;  // all there are
  std::vector<Pending*> idle_;
};

}  // namespace msserving
