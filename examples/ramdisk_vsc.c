#include "ramdisk_vsc.h"

#define RAMDISK_TAG 'cVdR'

static const GUID kType = RAMDISK_TYPE;
static const GUID kInstance = RAMDISK_INSTANCE;

struct RAMDISK_VSC {
  VMBCHANNEL Channel;

  /* Signalled while transfers may be sent: from the end of EvtVmbChannelPostStarted to Suspend. Who
   * sends holds the protection; Suspend waits for the last one, as KMCL wants no send after it. */
  KEVENT Ready;
  EX_RUNDOWN_REF Senders;
  BOOLEAN Greeted; /* since the channel was opened; touched by state callbacks only */

  /* A channel whose server went away, or could not be opened, becomes Disabled, and it is the
   * driver's to enable it again, from another thread. */
  PIO_WORKITEM Again;
  EX_RUNDOWN_REF AgainPending;
  volatile LONG AgainQueued;
  volatile LONG64 TimesLost;
  /* Held by who calls Disable and Enable. An event: a mutex would raise the level, and both block.
   */
  KEVENT Enabling;
  volatile LONG Closing; /* we call Disable ourselves */

  PUCHAR Bitmap; /* nonpaged: the server writes it */
  UINT32 BitmapGpadl;

  /* Touched by packet callbacks, which are serialized, and while there are none. */
  UINT64 LastNotice;
  volatile LONG64 Notices;
  volatile LONG OutOfOrder;
};

/* One transfer, on the stack of who waits for it. */
typedef struct TRANSFER {
  RAMDISK_VSC* Vsc;
  RAMDISK_TRANSFER Message;
  KEVENT Done;
  NTSTATUS Status;
} TRANSFER;

static EVT_VMB_CHANNEL_OPENED OnOpened;
static EVT_VMB_CHANNEL_CLOSED OnClosed;
static EVT_VMB_CHANNEL_SUSPEND OnSuspend;
static EVT_VMB_CHANNEL_POST_STARTED OnPostStarted;
static EVT_VMB_CHANNEL_PNP_FAILURE OnPnpFailure;
static EVT_VMB_CHANNEL_PROCESS_PACKET OnPacket;
static EVT_VMB_PACKET_COMPLETION_ROUTINE OnTransferDone;

/* ---- States ---- */

static NTSTATUS OnOpened(VMBCHANNEL Channel) {
  RAMDISK_VSC* vsc = VmbChannelGetPointer(Channel);
  vsc->Greeted = FALSE;
  vsc->LastNotice = 0;
  RtlZeroMemory(vsc->Bitmap, RAMDISK_BITMAP_BYTES);
  return VmbChannelCreateGpadlFromBuffer(Channel, 0, vsc->Bitmap, RAMDISK_BITMAP_BYTES,
                                         &vsc->BitmapGpadl);
}

static VOID OnPostStarted(VMBCHANNEL Channel) {
  RAMDISK_VSC* vsc = VmbChannelGetPointer(Channel);
  if (!vsc->Greeted) {
    RAMDISK_HELLO hello = {RamdiskHello, RAMDISK_VERSION, vsc->BitmapGpadl, 0};
    RAMDISK_HELLO_REPLY reply;
    UINT32 size = sizeof(reply);
    NTSTATUS status = VmbChannelSendSynchronousRequest(
        Channel, &hello, sizeof(hello), NULL, VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION, &reply,
        &size, NULL);
    if (!NT_SUCCESS(status)) return; /* it is being closed; the next open begins anew */
    if (size < sizeof(reply) || !NT_SUCCESS(reply.Status)) {
      DbgPrintEx(DPFLTR_IHVDRIVER_ID, DPFLTR_ERROR_LEVEL, "ramdisk: the disk refuses\n");
      return;
    }
    vsc->Greeted = TRUE;
  }
  ExReInitializeRundownProtection(&vsc->Senders);
  KeSetEvent(&vsc->Ready, 0, FALSE);
}

static VOID OnSuspend(VMBCHANNEL Channel) {
  RAMDISK_VSC* vsc = VmbChannelGetPointer(Channel);
  if (KeReadStateEvent(&vsc->Ready) == 0) return; /* never got so far */
  KeClearEvent(&vsc->Ready);
  ExWaitForRundownProtectionRelease(&vsc->Senders);
  ExRundownCompleted(&vsc->Senders);
}

static NTSTATUS Reopen(RAMDISK_VSC* Vsc) {
  NTSTATUS status;
  KeWaitForSingleObject(&Vsc->Enabling, Executive, KernelMode, FALSE, NULL);
  InterlockedExchange(&Vsc->Closing, TRUE);
  VmbChannelDisable(Vsc->Channel);
  InterlockedExchange(&Vsc->Closing, FALSE);
  status = VmbChannelEnable(Vsc->Channel);
  KeSetEvent(&Vsc->Enabling, 0, FALSE);
  return status;
}

static VOID LookAgain(PDEVICE_OBJECT DeviceObject, PVOID Context) {
  RAMDISK_VSC* vsc = Context;
  NTSTATUS status;
  UNREFERENCED_PARAMETER(DeviceObject);
  InterlockedExchange(&vsc->AgainQueued, FALSE);
  status = Reopen(vsc);
  if (!NT_SUCCESS(status)) {
    DbgPrintEx(DPFLTR_IHVDRIVER_ID, DPFLTR_ERROR_LEVEL, "ramdisk: the bus is gone\n");
  }
  ExReleaseRundownProtection(&vsc->AgainPending);
}

static VOID OnLost(RAMDISK_VSC* Vsc) {
  InterlockedIncrement64(&Vsc->TimesLost);
  if (InterlockedExchange(&Vsc->AgainQueued, TRUE)) return;
  if (ExAcquireRundownProtection(&Vsc->AgainPending)) {
    IoQueueWorkItem(Vsc->Again, LookAgain, DelayedWorkQueue, Vsc);
  }
}

static VOID OnPnpFailure(VMBCHANNEL Channel, NTSTATUS FailureStatus) {
  UNREFERENCED_PARAMETER(FailureStatus);
  OnLost(VmbChannelGetPointer(Channel));
}

static VOID OnClosed(VMBCHANNEL Channel) {
  RAMDISK_VSC* vsc = VmbChannelGetPointer(Channel);
  VmbChannelDeleteGpadl(Channel, vsc->BitmapGpadl);
  if (!InterlockedExchangeAdd(&vsc->Closing, 0)) OnLost(vsc);
}

/* ---- Packets ---- */

static VOID OnPacket(VMBCHANNEL Channel, VMBPACKETCOMPLETION Packet, PVOID Buffer,
                     UINT32 BufferLength, UINT32 Flags) {
  RAMDISK_VSC* vsc = VmbChannelGetPointer(Channel);
  const RAMDISK_NOTICE* notice = Buffer;
  UNREFERENCED_PARAMETER(Flags);
  if (BufferLength < sizeof(*notice) || notice->Type != RamdiskNotice) {
    VmbChannelPacketFail(Packet);
    return;
  }
  if (notice->Number != vsc->LastNotice + 1) InterlockedExchange(&vsc->OutOfOrder, TRUE);
  vsc->LastNotice = notice->Number;
  InterlockedIncrement64(&vsc->Notices);
  VmbChannelPacketComplete(Packet, Buffer, sizeof(*notice));
}

/* The bitmap says so before the disk does. */
static BOOLEAN IsMarked(RAMDISK_VSC* Vsc, const RAMDISK_TRANSFER* Write) {
  const volatile UCHAR* bitmap = Vsc->Bitmap;
  for (UINT64 sector = Write->FirstSector; sector < Write->FirstSector + Write->Sectors; ++sector) {
    if ((bitmap[sector / 8] & (1u << sector % 8)) == 0) return FALSE;
  }
  return TRUE;
}

static VOID OnTransferDone(VMBPACKET Packet, NTSTATUS Status, PVOID Buffer, UINT32 BufferLength) {
  TRANSFER* transfer = VmbPacketGetPointer(Packet);
  const RAMDISK_TRANSFER_REPLY* reply = Buffer;
  transfer->Status = Status;
  if (NT_SUCCESS(Status)) {
    transfer->Status = BufferLength < sizeof(*reply) ? STATUS_DATA_ERROR : reply->Status;
    if (NT_SUCCESS(transfer->Status) && transfer->Message.Type == RamdiskWrite &&
        !IsMarked(transfer->Vsc, &transfer->Message)) {
      transfer->Status = STATUS_DATA_ERROR;
    }
  }
  KeSetEvent(&transfer->Done, 0, FALSE);
}

/* An MDL chain over the buffer: two parts where it can be, as file systems like to have. */
static PMDL LockBuffer(PVOID Buffer, UINT32 Bytes, LOCK_OPERATION Operation) {
  const UINT32 first_bytes = Bytes > RAMDISK_SECTOR_BYTES ? Bytes / 2 : Bytes;
  PMDL first = IoAllocateMdl(Buffer, first_bytes, FALSE, FALSE, NULL);
  if (first == NULL) return NULL;
  if (first_bytes != Bytes) {
    first->Next =
        IoAllocateMdl((PUCHAR)Buffer + first_bytes, Bytes - first_bytes, FALSE, FALSE, NULL);
    if (first->Next == NULL) {
      IoFreeMdl(first);
      return NULL;
    }
  }
  for (PMDL part = first; part != NULL; part = part->Next) {
    MmProbeAndLockPages(part, KernelMode, Operation);
  }
  return first;
}

static VOID UnlockBuffer(PMDL Mdl) {
  while (Mdl != NULL) {
    PMDL next = Mdl->Next;
    MmUnlockPages(Mdl);
    IoFreeMdl(Mdl);
    Mdl = next;
  }
}

/* One try. STATUS_DEVICE_REMOVED: the channel went away; the disk may have done it, or not. */
static NTSTATUS TryTransfer(RAMDISK_VSC* Vsc, const RAMDISK_TRANSFER* Message, PMDL Mdl) {
  TRANSFER transfer = {.Vsc = Vsc, .Message = *Message, .Status = STATUS_PENDING};
  VMBPACKET packet;
  NTSTATUS status;

  KeWaitForSingleObject(&Vsc->Ready, Executive, KernelMode, FALSE, NULL);
  if (!ExAcquireRundownProtection(&Vsc->Senders)) return STATUS_DEVICE_REMOVED;
  packet = VmbPacketAllocate(Vsc->Channel);
  if (packet == NULL) {
    ExReleaseRundownProtection(&Vsc->Senders);
    return STATUS_INSUFFICIENT_RESOURCES;
  }
  KeInitializeEvent(&transfer.Done, NotificationEvent, FALSE);
  VmbPacketSetPointer(packet, &transfer);
  VmbPacketSetCompletionRoutine(packet, OnTransferDone);
  status = VmbPacketSend(packet, &transfer.Message, sizeof(transfer.Message), Mdl,
                         VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION);
  ExReleaseRundownProtection(&Vsc->Senders);
  if (NT_SUCCESS(status)) {
    KeWaitForSingleObject(&transfer.Done, Executive, KernelMode, FALSE, NULL);
    status = transfer.Status;
  }
  VmbPacketFree(packet);
  return status;
}

NTSTATUS RamdiskVscTransfer(RAMDISK_VSC* Vsc, BOOLEAN Write, UINT64 FirstSector, UINT32 Sectors,
                            PVOID Buffer) {
  const RAMDISK_TRANSFER message = {Write ? RamdiskWrite : RamdiskRead, Sectors, FirstSector};
  NTSTATUS status;
  PMDL mdl;
  if (Sectors == 0 || Sectors > RAMDISK_MOST_SECTORS) return STATUS_INVALID_PARAMETER_4;
  mdl = LockBuffer(Buffer, Sectors * RAMDISK_SECTOR_BYTES, Write ? IoReadAccess : IoWriteAccess);
  if (mdl == NULL) return STATUS_INSUFFICIENT_RESOURCES;
  /* Reading or writing the same twice does no harm. The next try waits for the next open, so the
   * server is done with our memory by then. */
  do {
    status = TryTransfer(Vsc, &message, mdl);
  } while (status == STATUS_DEVICE_REMOVED);
  UnlockBuffer(mdl);
  return status;
}

VOID RamdiskVscNotices(RAMDISK_VSC* Vsc, UINT64* Total, BOOLEAN* OutOfOrder) {
  *Total = (UINT64)InterlockedAdd64(&Vsc->Notices, 0);
  *OutOfOrder = InterlockedExchangeAdd(&Vsc->OutOfOrder, 0) != 0;
}

/* ---- Life ---- */

VOID RamdiskVscPause(RAMDISK_VSC* Vsc) { VmbChannelPause(Vsc->Channel); }

VOID RamdiskVscStart(RAMDISK_VSC* Vsc) { VmbChannelStart(Vsc->Channel); }

NTSTATUS RamdiskVscRestart(RAMDISK_VSC* Vsc) { return Reopen(Vsc); }

UINT64 RamdiskVscTimesLost(RAMDISK_VSC* Vsc) {
  return (UINT64)InterlockedExchangeAdd64(&Vsc->TimesLost, 0);
}

static NTSTATUS Configure(RAMDISK_VSC* Vsc) {
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  NTSTATUS status;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  callbacks.EvtChannelOpened = OnOpened;
  callbacks.EvtChannelPostStarted = OnPostStarted;
  callbacks.EvtChannelSuspend = OnSuspend;
  callbacks.EvtChannelClosed = OnClosed;
  VmbChannelSetPointer(Vsc->Channel, Vsc);
  status = VmbClientChannelInitSetTargetPnp(Vsc->Channel, &kType, &kInstance, OnPnpFailure);
  if (NT_SUCCESS(status)) {
    status =
        VmbChannelInitSetMaximumExternalData(Vsc->Channel, RAMDISK_MOST_BYTES, RAMDISK_MOST_PARTS);
  }
  if (NT_SUCCESS(status)) {
    status = VmbChannelInitSetStateChangeCallbacks(Vsc->Channel, &callbacks);
  }
  if (NT_SUCCESS(status)) {
    status = VmbChannelInitSetProcessPacketCallbacks(Vsc->Channel, OnPacket, NULL);
  }
  return status;
}

NTSTATUS RamdiskVscCreate(PDEVICE_OBJECT DeviceObject, RAMDISK_VSC** Vsc) {
  RAMDISK_VSC* vsc = ExAllocatePool2(POOL_FLAG_NON_PAGED, sizeof(*vsc), RAMDISK_TAG);
  NTSTATUS status = STATUS_INSUFFICIENT_RESOURCES;
  *Vsc = NULL;
  if (vsc == NULL) return status;
  KeInitializeEvent(&vsc->Ready, NotificationEvent, FALSE);
  ExInitializeRundownProtection(&vsc->Senders);
  /* Run down until the disk has answered. */
  ExWaitForRundownProtectionRelease(&vsc->Senders);
  ExRundownCompleted(&vsc->Senders);
  ExInitializeRundownProtection(&vsc->AgainPending);
  KeInitializeEvent(&vsc->Enabling, SynchronizationEvent, TRUE);
  vsc->Again = IoAllocateWorkItem(DeviceObject);
  vsc->Bitmap = ExAllocatePool2(POOL_FLAG_NON_PAGED, RAMDISK_BITMAP_BYTES, RAMDISK_TAG);
  if (vsc->Again != NULL && vsc->Bitmap != NULL)
    status = VmbChannelAllocate(DeviceObject, FALSE, &vsc->Channel);
  if (NT_SUCCESS(status)) {
    status = Configure(vsc);
    if (NT_SUCCESS(status)) status = VmbChannelEnable(vsc->Channel);
    if (!NT_SUCCESS(status)) VmbChannelCleanup(vsc->Channel);
  }
  if (!NT_SUCCESS(status)) {
    if (vsc->Again != NULL) IoFreeWorkItem(vsc->Again);
    if (vsc->Bitmap != NULL) ExFreePoolWithTag(vsc->Bitmap, RAMDISK_TAG);
    ExFreePoolWithTag(vsc, RAMDISK_TAG);
    return status;
  }
  *Vsc = vsc;
  return STATUS_SUCCESS;
}

VOID RamdiskVscDestroy(RAMDISK_VSC* Vsc) {
  if (Vsc == NULL) return;
  /* Nobody looks again from here on. */
  ExWaitForRundownProtectionRelease(&Vsc->AgainPending);
  ExRundownCompleted(&Vsc->AgainPending);
  VmbChannelDisable(Vsc->Channel);
  VmbChannelCleanup(Vsc->Channel);
  IoFreeWorkItem(Vsc->Again);
  ExFreePoolWithTag(Vsc->Bitmap, RAMDISK_TAG);
  ExFreePoolWithTag(Vsc, RAMDISK_TAG);
}
