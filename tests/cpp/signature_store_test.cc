#include "protocol/signature_store.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace msserving {
namespace {

TEST(SignatureStoreTest, EqualSignaturesAreKeptOnce) {
  SignatureStore store;
  const MethodSignature a{"m", {"x"}, {"y"}};
  const MethodSignature b{"m", {"x"}, {"y"}};
  EXPECT_EQ(store.Keep(a), store.Keep(b));
  EXPECT_EQ(store.Keep(a), store.Keep(a));
  EXPECT_EQ(store.size(), 1u);
}

TEST(SignatureStoreTest, EveryDifferenceCounts) {
  SignatureStore store;
  for (const MethodSignature& one : {MethodSignature{"m", {"x"}, {"y"}}, MethodSignature{"n", {"x"}, {"y"}},
                                     MethodSignature{"m", {"z"}, {"y"}}, MethodSignature{"m", {"x"}, {"y", "z"}}}) {
    const MethodSignature* kept = store.Keep(one);
    EXPECT_EQ(kept->name, one.name);
    EXPECT_EQ(kept->inputs, one.inputs);
    EXPECT_EQ(kept->outputs, one.outputs);
  }
  EXPECT_EQ(store.size(), 4u);
}

TEST(SignatureStoreTest, KeptOneOutlivesTheOriginal_AddressMayBeUsedAgain) {
  SignatureStore store;
  auto signature = std::make_unique<MethodSignature>(MethodSignature{"first", {}, {"a"}});
  const MethodSignature* first = store.Keep(*signature);
  *signature = MethodSignature{"second", {}, {"b"}};  // the same address, other contents
  const MethodSignature* second = store.Keep(*signature);
  signature.reset();
  EXPECT_EQ(first->outputs[0], "a");
  EXPECT_EQ(second->outputs[0], "b");
}

TEST(SignatureStoreTest, KeptOnesStayInPlaceWhileOthersCome) {
  SignatureStore store;
  const MethodSignature* first = store.Keep({"m0", {}, {"y"}});
  for (int i = 1; i < 1000; ++i) {
    store.Keep({"m" + std::to_string(i), {}, {"y"}});
  }
  EXPECT_EQ(store.Keep({"m0", {}, {"y"}}), first);
  EXPECT_EQ(store.size(), 1000u);
}

}  // namespace
}  // namespace msserving
