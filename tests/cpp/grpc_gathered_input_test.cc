// Input of connections whose calls were refused is read now and then only.
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "grpc_server_fixture.h"
#include "net/connection.h"

namespace msserving {
namespace {

using testing::Frame;
using testing::GrpcServerTest;
using testing::H2Client;

// The test's clock stands still until it is told to go on.
TEST_F(GrpcServerTest, AfterARefusalInputIsGatheredForAMoment) {
  Serve({}, &clock);
  H2Client client(port());
  EXPECT_EQ(client.Call("/t/Refuse", "x").status(), "8");
  const int32_t first = client.Start(H2Client::Grpc("/t/Echo"), Frame("first"));
  const int32_t second = client.Start(H2Client::Grpc("/t/Refuse"), Frame("second"));
  H2Client other(port());
  EXPECT_EQ(other.Call("/t/Echo", "others are read").message(), "others are read");
  EXPECT_EQ(service.calls, 2);
  Advance(Connection::kGatherNs);
  EXPECT_EQ(client.Wait(first).message(), "first");
  EXPECT_EQ(client.Wait(second).status(), "8");
  EXPECT_EQ(service.calls, 4);
  const int32_t third = client.Start(H2Client::Grpc("/t/Echo"), Frame("third"));
  EXPECT_EQ(other.Call("/t/Echo", "as ever").message(), "as ever");
  EXPECT_EQ(service.calls, 5) << "refused again, gathered again";
  Advance(Connection::kGatherNs);
  EXPECT_EQ(client.Wait(third).message(), "third");
  EXPECT_EQ(client.Call("/t/Echo", "at once").message(), "at once") << "nothing was refused";
}

TEST_F(GrpcServerTest, NothingComesWhileInputIsGathered_TheNextIsReadAtOnce) {
  Serve({}, &clock);
  H2Client client(port());
  EXPECT_EQ(client.Call("/t/Refuse", "x").status(), "8");
  EXPECT_TRUE(client.RunUntil([&] { return client.greeted; }));
  Advance(Connection::kGatherNs);
  EXPECT_EQ(client.Call("/t/Echo", "y").message(), "y");
}

TEST_F(GrpcServerTest, WhoLeavesWhileInputIsGatheredIsNoticed) {
  Serve({}, &clock);
  {
    H2Client client(port());
    EXPECT_EQ(client.Call("/t/Refuse", "x").status(), "8");
    EXPECT_EQ(connections(), 1u);
  }
  Advance(Connection::kGatherNs);
  EXPECT_TRUE(Eventually([&] { return connections() == 0; }));
}

TEST_F(GrpcServerTest, DestroyedServerForgetsGatheredInput) {
  Serve({}, &clock);
  H2Client client(port());
  EXPECT_EQ(client.Call("/t/Refuse", "x").status(), "8");
  OnLoop([&] { server.reset(); });
  Advance(Connection::kGatherNs);
  EXPECT_FALSE(client.RunUntil([] { return false; }));
  EXPECT_TRUE(client.ended);
}

TEST_F(GrpcServerTest, ACallRefusedAtItsHeadersNeedsNoMessage) {
  GrpcServerOptions options;
  options.bytes_in_flight = std::make_shared<ByteBudget>(1 << 20);
  Serve(options);
  H2Client client(port());
  const std::string half = Frame(std::string(100'000, 'h')).substr(0, 50'000);
  const int32_t id = client.Start(H2Client::Grpc("/t/Full"), half, false);
  EXPECT_EQ(client.Wait(id).status(), "8");
  EXPECT_EQ(client.response(id).error_code, 0u) << "the rest is not wanted, and that is no error";
  EXPECT_EQ(client.Call("/t/Full", "whole").status(), "8");
  EXPECT_EQ(service.calls, 0);
  EXPECT_EQ(options.bytes_in_flight->used(), 0u);
  EXPECT_EQ(client.Call("/t/Echo", "x").message(), "x");
}

}  // namespace
}  // namespace msserving
