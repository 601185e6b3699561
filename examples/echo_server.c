/* Serves a bus with one echo channel for each client: every request is answered with its own bytes.
 *
 *   KMCL_BUS=unix:/tmp/bus echo_server
 *
 * Prints "serving" once clients may connect; ends on Ctrl-C or SIGTERM. */
#define _POSIX_C_SOURCE 200809L /* sigwait */

#include <kmcl/endpoint.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

/* The protocol, and the one device that speaks it. examples/echo_client.c looks for the first. */
static const GUID kEchoType = {
    0x5c0b0a52, 0x2f6e, 0x4c63, {0x9a, 0x0e, 0x31, 0x7d, 0x58, 0xc4, 0x6b, 0x17}};
static const GUID kEchoInstance = {
    0xe21f4d08, 0x7a95, 0x4b1c, {0x83, 0xd6, 0x0f, 0x62, 0xbe, 0x29, 0x94, 0x50}};

static BOOLEAN Ok(NTSTATUS Status) {
  if (!NT_SUCCESS(Status)) fprintf(stderr, "echo_server: %s\n", KmclStatusName(Status));
  return NT_SUCCESS(Status);
}

/* Which channel was offered to which client. Arrivals and departures come on different threads. */
typedef struct OFFERED {
  HANDLE Partition;
  VMBCHANNEL Channel;
  struct OFFERED* Next;
} OFFERED;
static OFFERED* g_Offered;
static pthread_mutex_t g_OfferedLock = PTHREAD_MUTEX_INITIALIZER;

static VOID Remember(HANDLE Partition, VMBCHANNEL Channel) {
  OFFERED* offered = malloc(sizeof(*offered));
  if (offered == NULL) abort();
  offered->Partition = Partition;
  offered->Channel = Channel;
  pthread_mutex_lock(&g_OfferedLock);
  offered->Next = g_Offered;
  g_Offered = offered;
  pthread_mutex_unlock(&g_OfferedLock);
}

static VMBCHANNEL Forget(HANDLE Partition) {
  VMBCHANNEL channel = NULL;
  pthread_mutex_lock(&g_OfferedLock);
  for (OFFERED** link = &g_Offered; *link != NULL; link = &(*link)->Next) {
    if ((*link)->Partition == Partition) {
      OFFERED* found = *link;
      channel = found->Channel;
      *link = found->Next;
      free(found);
      break;
    }
  }
  pthread_mutex_unlock(&g_OfferedLock);
  return channel;
}

/* A request has come: its own bytes are the answer. */
static VOID OnPacket(VMBCHANNEL Channel, VMBPACKETCOMPLETION Packet, PVOID Buffer,
                     UINT32 BufferLength, UINT32 Flags) {
  (void)Channel, (void)Flags;
  VmbChannelPacketComplete(Packet, Buffer, BufferLength);
}

/* A client has connected: offer it a channel. */
static VOID OnArrival(PVOID Context, KMCL_SERVER Server, HANDLE Partition) {
  VMBCHANNEL channel = NULL;
  (void)Context;
  if (Ok(VmbChannelAllocate(KmclServerDeviceObject(Server), TRUE, &channel)) &&
      Ok(VmbServerChannelInitSetVmbusHandle(channel, Partition)) &&
      Ok(VmbServerChannelInitSetTargetInterfaceId(channel, kEchoType, kEchoInstance)) &&
      Ok(VmbChannelInitSetProcessPacketCallbacks(channel, OnPacket, NULL)) &&
      Ok(VmbChannelEnable(channel))) {
    VmbChannelStart(channel);
  }
  Remember(Partition, channel);
}

/* It has left, or died; its channel is closed. */
static VOID OnGone(PVOID Context, KMCL_SERVER Server, HANDLE Partition) {
  VMBCHANNEL channel = Forget(Partition);
  (void)Context, (void)Server;
  if (channel != NULL) VmbChannelDisable(channel);
  VmbChannelCleanup(channel);
}

int main(void) {
  /* Blocked before there are threads, so that only sigwait below takes them. */
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, NULL);

  KMCL_ENDPOINT_OPTIONS options;
  KmclEndpointOptionsInit(&options);
  options.PartitionArrived = OnArrival;
  options.PartitionGone = OnGone;
  KMCL_SERVER server;
  if (!Ok(KmclServerCreate(NULL, &options, &server))) return EXIT_FAILURE;
  puts("serving");
  fflush(stdout);

  int caught;
  sigwait(&signals, &caught);
  KmclServerDestroy(server);
  return EXIT_SUCCESS;
}
