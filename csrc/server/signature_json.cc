#include "server/signature_json.h"

#include <simdjson.h>

#include <algorithm>
#include <string>

namespace msserving {
namespace {

bool ReadNames(simdjson::dom::element list, std::vector<std::string>* names) {
  simdjson::dom::array items;
  if (list.get_array().get(items) != simdjson::SUCCESS) {
    return false;
  }
  for (const simdjson::dom::element item : items) {
    std::string_view name;
    if (item.get_string().get(name) != simdjson::SUCCESS) {
      return false;
    }
    names->emplace_back(name);
  }
  return true;
}

bool Contains(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

Status ParseSignature(std::string_view json, ServableSignature* signature) {
  Status malformed(ErrorKind::kInternal, "the worker described its methods in a form that was not understood");
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  simdjson::dom::array methods;
  if (parser.parse(json.data(), json.size()).get(root) != simdjson::SUCCESS ||
      root["methods"].get_array().get(methods) != simdjson::SUCCESS) {
    return malformed;
  }
  if (double seconds = 0; root["shortest_timeout_s"].get_double().get(seconds) == simdjson::SUCCESS) {
    signature->shortest_timeout_s = seconds;
  }
  for (const simdjson::dom::element item : methods) {
    MethodSignature method;
    std::string_view name;
    simdjson::dom::element inputs;
    simdjson::dom::element outputs;
    if (item["name"].get_string().get(name) != simdjson::SUCCESS || item["inputs"].get(inputs) != simdjson::SUCCESS ||
        item["outputs"].get(outputs) != simdjson::SUCCESS || !ReadNames(inputs, &method.inputs) ||
        !ReadNames(outputs, &method.outputs)) {
      return malformed;
    }
    simdjson::dom::element listed;
    std::vector<std::string> stages;
    if (item["stages"].get(listed) == simdjson::SUCCESS && !ReadNames(listed, &stages)) {
      return malformed;
    }
    method.has_python = Contains(stages, "python");
    method.has_model = Contains(stages, "model");
    method.name = name;
    signature->methods.push_back(std::move(method));
  }
  simdjson::dom::array models;
  signature->has_models = root["models"].get_array().get(models) == simdjson::SUCCESS && models.size() > 0;
  return Status::Ok();
}

}  // namespace msserving
