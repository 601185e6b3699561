/* Sends one request over a bus and prints the answer.
 *
 *   KMCL_BUS=unix:/tmp/bus echo_client [TEXT]
 *
 * Needs examples/echo_server.c at the other end. */
#include <kmcl/endpoint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const GUID kEchoType = {
    0x5c0b0a52, 0x2f6e, 0x4c63, {0x9a, 0x0e, 0x31, 0x7d, 0x58, 0xc4, 0x6b, 0x17}};

static VOID Require(NTSTATUS Status) {
  if (NT_SUCCESS(Status)) return;
  fprintf(stderr, "echo_client: %s\n", KmclStatusName(Status));
  exit(EXIT_FAILURE);
}

int main(int argc, char** argv) {
  char request[1024] = "Hello over VMBus.";
  if (argc > 1) snprintf(request, sizeof(request), "%s", argv[1]);
  char answer[sizeof(request)];
  UINT32 answer_bytes = sizeof(answer);
  LARGE_INTEGER five_seconds;
  five_seconds.QuadPart = -5 * 10000000LL; /* relative, in units of 100 ns */

  KMCL_CLIENT client;
  VMBCHANNEL channel;
  Require(KmclClientConnect(NULL, NULL, &client)); /* to the bus that KMCL_BUS names */
  Require(VmbChannelAllocate(KmclClientDeviceObject(client), FALSE, &channel));
  Require(VmbClientChannelInitSetTargetPnp(channel, &kEchoType, NULL, NULL));
  Require(VmbChannelEnable(channel));
  Require(VmbChannelSendSynchronousRequest(channel, request, (UINT32)strlen(request) + 1, NULL,
                                           VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION, answer,
                                           &answer_bytes, &five_seconds));
  printf("%.*s\n", (int)answer_bytes, answer);
  VmbChannelDisable(channel);
  VmbChannelCleanup(channel);
  KmclClientDestroy(client);
  return EXIT_SUCCESS;
}
