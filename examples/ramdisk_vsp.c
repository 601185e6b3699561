#include "ramdisk_vsp.h"

#define RAMDISK_TAG 'pVdR'

static const GUID kType = RAMDISK_TYPE;
static const GUID kInstance = RAMDISK_INSTANCE;

struct RAMDISK_VSP {
  VMBCHANNEL Channel;
  RAMDISK_IMAGE* Image;

  /* The client's bitmap: its GPADL, and while that is mapped, where. State callbacks and HELLO,
   * which is handled at PASSIVE_LEVEL, never run at the same time. */
  UINT32 BitmapGpadl;
  PUCHAR Bitmap;

  /* Touched by packet callbacks, which are serialized, and while the channel is paused. */
  UINT64 Writes;
  UINT64 LastNotice;
};

/* What RamdiskVspSave adds to the library's bytes, and stands before them. */
typedef struct SAVED_VSP {
  UINT32 Version;
  UINT32 BitmapGpadl;
  UINT64 Writes;
  UINT64 LastNotice;
} SAVED_VSP;

static EVT_VMB_CHANNEL_OPENED OnOpened;
static EVT_VMB_CHANNEL_CLOSED OnClosed;
static EVT_VMB_CHANNEL_PROCESS_PACKET OnPacket;
static EVT_VMB_CHANNEL_SAVE_PACKET OnSavePacket;
static EVT_VMB_CHANNEL_RESTORE_PACKET OnRestorePacket;
static EVT_VMB_PACKET_COMPLETION_ROUTINE OnNoticeDone;

/* ---- The bitmap ---- */

static VOID UnmapBitmap(RAMDISK_VSP* Vsp) {
  if (Vsp->Bitmap != NULL) VmbChannelUnmapGpadl(Vsp->Channel, Vsp->BitmapGpadl);
  Vsp->Bitmap = NULL;
  Vsp->BitmapGpadl = 0;
}

/* The handle came from the client: any value may be tried, none may be trusted. */
static NTSTATUS MapBitmap(RAMDISK_VSP* Vsp, UINT32 Gpadl) {
  PMDL mdl;
  NTSTATUS status = VmbChannelMapGpadl(Vsp->Channel, 0, Gpadl, &mdl);
  if (!NT_SUCCESS(status)) return status;
  Vsp->BitmapGpadl = Gpadl;
  /* It is one piece at our client; a chain, or one of another size, is not ours. */
  if (mdl->Next == NULL && MmGetMdlByteCount(mdl) == RAMDISK_BITMAP_BYTES) {
    Vsp->Bitmap = MmGetSystemAddressForMdlSafe(mdl, NormalPagePriority);
  }
  if (Vsp->Bitmap == NULL) {
    VmbChannelUnmapGpadl(Vsp->Channel, Gpadl);
    Vsp->BitmapGpadl = 0;
    return STATUS_INVALID_BUFFER_SIZE;
  }
  return STATUS_SUCCESS;
}

static VOID MarkWritten(RAMDISK_VSP* Vsp, UINT64 First, UINT32 Count) {
  for (UINT64 sector = First; sector < First + Count; ++sector) {
    const UCHAR bit = (UCHAR)(1u << sector % 8);
    Vsp->Image->Written[sector / 8] |= bit;
    if (Vsp->Bitmap != NULL) Vsp->Bitmap[sector / 8] |= bit;
  }
}

/* ---- Packets ---- */

static VOID Reply(VMBPACKETCOMPLETION Packet, NTSTATUS Status) {
  RAMDISK_TRANSFER_REPLY reply = {Status, 0};
  VmbChannelPacketComplete(Packet, &reply, sizeof(reply));
}

static VOID Hello(RAMDISK_VSP* Vsp, VMBPACKETCOMPLETION Packet, const RAMDISK_HELLO* Message) {
  RAMDISK_HELLO_REPLY reply = {STATUS_REVISION_MISMATCH, 0, RAMDISK_MOST_DISK_SECTORS};
  if (Message->Version == RAMDISK_VERSION) {
    UnmapBitmap(Vsp);
    Vsp->Writes = 0;
    Vsp->LastNotice = 0;
    reply.Status = MapBitmap(Vsp, Message->BitmapGpadl);
    if (NT_SUCCESS(reply.Status)) {
      RtlCopyMemory(Vsp->Bitmap, Vsp->Image->Written, RAMDISK_BITMAP_BYTES);
    }
  }
  VmbChannelPacketComplete(Packet, &reply, sizeof(reply));
}

/* Copies between the disk and the memory that the packet describes. */
static NTSTATUS Transfer(RAMDISK_VSP* Vsp, const RAMDISK_TRANSFER* Message, PMDL Mdl) {
  const BOOLEAN write = Message->Type == RamdiskWrite;
  SIZE_T left = (SIZE_T)Message->Sectors * RAMDISK_SECTOR_BYTES;
  SIZE_T described = 0;
  PUCHAR at;

  if (Message->Sectors == 0 || Message->Sectors > RAMDISK_MOST_SECTORS ||
      Message->FirstSector > RAMDISK_MOST_DISK_SECTORS - Message->Sectors) {
    return STATUS_INVALID_PARAMETER;
  }
  for (PMDL part = Mdl; part != NULL; part = part->Next) described += MmGetMdlByteCount(part);
  if (described != left) return STATUS_INVALID_BUFFER_SIZE;

  at = Vsp->Image->Sectors[Message->FirstSector];
  for (PMDL part = Mdl; part != NULL; part = part->Next) {
    const SIZE_T bytes = MmGetMdlByteCount(part);
    PVOID memory = MmGetSystemAddressForMdlSafe(
        part, NormalPagePriority | MdlMappingNoExecute | (write ? MdlMappingNoWrite : 0));
    if (memory == NULL) return STATUS_INSUFFICIENT_RESOURCES;
    if (write) {
      RtlCopyMemory(at, memory, bytes);
    } else {
      RtlCopyMemory(memory, at, bytes);
    }
    at += bytes;
  }
  if (write) MarkWritten(Vsp, Message->FirstSector, Message->Sectors);
  return STATUS_SUCCESS;
}

/* The packet keeps the notice's number as its pointer, so that nothing else has to live as long. */
static VMBPACKET NewNotice(RAMDISK_VSP* Vsp, UINT64 Number) {
  VMBPACKET packet = VmbPacketAllocate(Vsp->Channel);
  if (packet == NULL) return NULL;
  VmbPacketSetCompletionRoutine(packet, OnNoticeDone);
  VmbPacketSetPointer(packet, (PVOID)(ULONG_PTR)Number);
  return packet;
}

static VOID OnNoticeDone(VMBPACKET Packet, NTSTATUS Status, PVOID Buffer, UINT32 BufferLength) {
  const UINT64 number = (ULONG_PTR)VmbPacketGetPointer(Packet);
  const RAMDISK_NOTICE* reply = Buffer;
  if (NT_SUCCESS(Status) && (BufferLength < sizeof(*reply) || reply->Number != number)) {
    DbgPrintEx(DPFLTR_IHVDRIVER_ID, DPFLTR_ERROR_LEVEL,
               "ramdisk: notice %llu has another's answer\n", (unsigned long long)number);
  }
  VmbPacketFree(Packet);
}

static VOID SendNotice(RAMDISK_VSP* Vsp) {
  RAMDISK_NOTICE notice = {RamdiskNotice, 0, Vsp->LastNotice + 1};
  VMBPACKET packet = NewNotice(Vsp, notice.Number);
  if (packet == NULL) return; /* the next write tries again */
  if (NT_SUCCESS(VmbPacketSend(packet, &notice, sizeof(notice), NULL,
                               VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION))) {
    Vsp->LastNotice = notice.Number;
  } else {
    VmbPacketFree(packet);
  }
}

static VOID OnPacket(VMBCHANNEL Channel, VMBPACKETCOMPLETION Packet, PVOID Buffer,
                     UINT32 BufferLength, UINT32 Flags) {
  RAMDISK_VSP* vsp = VmbChannelGetPointer(Channel);
  const RAMDISK_TRANSFER* message = Buffer; /* RAMDISK_HELLO is as long */
  PMDL mdl = NULL;
  NTSTATUS status;

  if (BufferLength < sizeof(*message)) {
    VmbChannelPacketFail(Packet);
    return;
  }
  switch (message->Type) {
    case RamdiskHello:
      /* GPADLs are mapped at PASSIVE_LEVEL. */
      if (KeGetCurrentIrql() > PASSIVE_LEVEL) {
        VmbChannelPacketDeferToPassive(Packet);
      } else {
        Hello(vsp, Packet, Buffer);
      }
      return;
    case RamdiskRead:
    case RamdiskWrite:
      if ((Flags & VMBUS_CHANNEL_PROCESS_PACKET_FLAG_EXTERNAL_DATA) == 0) {
        Reply(Packet, STATUS_INVALID_PARAMETER);
        return;
      }
      status = VmbChannelPacketGetExternalData(
          Packet,
          message->Type == RamdiskWrite ? VMBUS_CHANNEL_PACKET_EXTERNAL_DATA_FLAG_READ_ONLY : 0,
          &mdl);
      if (status == STATUS_PENDING) return; /* the packet comes again */
      if (NT_SUCCESS(status)) status = Transfer(vsp, message, mdl);
      if (NT_SUCCESS(status) && message->Type == RamdiskWrite &&
          ++vsp->Writes % RAMDISK_WRITES_PER_NOTICE == 0) {
        SendNotice(vsp);
      }
      Reply(Packet, status);
      return;
    default:
      VmbChannelPacketFail(Packet);
      return;
  }
}

/* ---- States ---- */

/* A channel that was restored opens with a bitmap that its client gave before. If it is gone, so is
 * the client's driver, and the next one says hello. */
static NTSTATUS OnOpened(VMBCHANNEL Channel) {
  RAMDISK_VSP* vsp = VmbChannelGetPointer(Channel);
  const UINT32 gpadl = vsp->BitmapGpadl;
  vsp->BitmapGpadl = 0;
  if (gpadl != 0) MapBitmap(vsp, gpadl);
  return STATUS_SUCCESS;
}

static VOID OnClosed(VMBCHANNEL Channel) { UnmapBitmap(VmbChannelGetPointer(Channel)); }

/* ---- Save and restore ---- */

static NTSTATUS OnSavePacket(VMBCHANNEL Channel, VMBPACKET Packet, PVOID SaveBuf,
                             UINT32 SaveBufSize, PUINT32 BytesNeeded) {
  UINT64 number = (ULONG_PTR)VmbPacketGetPointer(Packet);
  UNREFERENCED_PARAMETER(Channel);
  if (SaveBufSize < sizeof(number)) {
    *BytesNeeded = sizeof(number);
    return STATUS_BUFFER_TOO_SMALL;
  }
  RtlCopyMemory(SaveBuf, &number, sizeof(number));
  return STATUS_SUCCESS;
}

static NTSTATUS OnRestorePacket(VMBCHANNEL Channel, PVOID LibBuf, UINT32 LibBufSize, PVOID SaveBuf,
                                UINT32 SaveBufSize) {
  UINT64 number;
  VMBPACKET packet;
  NTSTATUS status;
  if (SaveBufSize != sizeof(number)) return STATUS_DATA_ERROR;
  RtlCopyMemory(&number, SaveBuf, sizeof(number));
  packet = NewNotice(VmbChannelGetPointer(Channel), number);
  if (packet == NULL) return STATUS_INSUFFICIENT_RESOURCES;
  status = VmbPacketRestore(packet, LibBuf, LibBufSize);
  if (!NT_SUCCESS(status)) VmbPacketFree(packet);
  return status;
}

NTSTATUS RamdiskVspSave(RAMDISK_VSP* Vsp, PVOID* Saved, ULONG* SavedSize) {
  ULONG capacity = 4096, used = sizeof(SAVED_VSP), filled, required;
  PUCHAR bytes = ExAllocatePool2(POOL_FLAG_PAGED, capacity, RAMDISK_TAG);
  NTSTATUS status;

  *Saved = NULL;
  *SavedSize = 0;
  VmbChannelPause(Vsp->Channel);
  status = bytes == NULL ? STATUS_INSUFFICIENT_RESOURCES : VmbChannelSaveBegin(Vsp->Channel);
  if (!NT_SUCCESS(status)) {
    if (bytes != NULL) ExFreePoolWithTag(bytes, RAMDISK_TAG);
    return status;
  }
  for (;;) {
    status =
        VmbChannelSaveContinue(Vsp->Channel, bytes + used, capacity - used, &filled, &required);
    used += filled;
    if (status != STATUS_BUFFER_OVERFLOW && status != STATUS_BUFFER_TOO_SMALL) break;
    if (capacity - used < required) {
      PUCHAR larger = ExAllocatePool2(POOL_FLAG_PAGED, used + required + capacity, RAMDISK_TAG);
      if (larger == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        break;
      }
      RtlCopyMemory(larger, bytes, used);
      ExFreePoolWithTag(bytes, RAMDISK_TAG);
      bytes = larger;
      capacity = used + required + capacity;
    }
  }
  VmbChannelSaveEnd(Vsp->Channel);
  if (NT_SUCCESS(status)) {
    SAVED_VSP own = {RAMDISK_VERSION, Vsp->BitmapGpadl, Vsp->Writes, Vsp->LastNotice};
    RtlCopyMemory(bytes, &own, sizeof(own));
    *Saved = bytes;
    *SavedSize = used;
  } else {
    ExFreePoolWithTag(bytes, RAMDISK_TAG);
  }
  return status;
}

VOID RamdiskVspResume(RAMDISK_VSP* Vsp) { VmbChannelStart(Vsp->Channel); }

static NTSTATUS Restore(RAMDISK_VSP* Vsp, const VOID* Saved, ULONG SavedSize) {
  SAVED_VSP own;
  if (SavedSize < sizeof(own)) return STATUS_DATA_ERROR;
  RtlCopyMemory(&own, Saved, sizeof(own));
  if (own.Version != RAMDISK_VERSION) return STATUS_REVISION_MISMATCH;
  Vsp->BitmapGpadl = own.BitmapGpadl;
  Vsp->Writes = own.Writes;
  Vsp->LastNotice = own.LastNotice;
  return VmbChannelRestoreFromBuffer(Vsp->Channel, (PUCHAR)(ULONG_PTR)Saved + sizeof(own),
                                     SavedSize - (ULONG)sizeof(own));
}

/* ---- Life ---- */

static NTSTATUS Configure(RAMDISK_VSP* Vsp, HANDLE Partition) {
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  NTSTATUS status;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  callbacks.EvtChannelOpened = OnOpened;
  callbacks.EvtChannelClosed = OnClosed;
  VmbChannelSetPointer(Vsp->Channel, Vsp);
  status = VmbServerChannelInitSetVmbusHandle(Vsp->Channel, Partition);
  if (NT_SUCCESS(status)) {
    status = VmbServerChannelInitSetTargetInterfaceId(Vsp->Channel, kType, kInstance);
  }
  if (NT_SUCCESS(status)) {
    status =
        VmbChannelInitSetMaximumExternalData(Vsp->Channel, RAMDISK_MOST_BYTES, RAMDISK_MOST_PARTS);
  }
  if (NT_SUCCESS(status)) {
    status = VmbChannelInitSetStateChangeCallbacks(Vsp->Channel, &callbacks);
  }
  if (NT_SUCCESS(status)) {
    status = VmbChannelInitSetProcessPacketCallbacks(Vsp->Channel, OnPacket, NULL);
  }
  if (NT_SUCCESS(status)) {
    status = VmbServerChannelInitSetSaveRestorePacketCallbacks(Vsp->Channel, OnSavePacket,
                                                               OnRestorePacket);
  }
  return status;
}

NTSTATUS RamdiskVspCreate(PDEVICE_OBJECT DeviceObject, HANDLE Partition, RAMDISK_IMAGE* Image,
                          const VOID* Saved, ULONG SavedSize, RAMDISK_VSP** Vsp) {
  RAMDISK_VSP* vsp = ExAllocatePool2(POOL_FLAG_PAGED, sizeof(*vsp), RAMDISK_TAG);
  NTSTATUS status;
  *Vsp = NULL;
  if (vsp == NULL) return STATUS_INSUFFICIENT_RESOURCES;
  vsp->Image = Image;
  status = VmbChannelAllocate(DeviceObject, TRUE, &vsp->Channel);
  if (NT_SUCCESS(status)) {
    status = Configure(vsp, Partition);
    if (NT_SUCCESS(status) && Saved != NULL) status = Restore(vsp, Saved, SavedSize);
    if (NT_SUCCESS(status)) status = VmbChannelEnable(vsp->Channel);
    if (!NT_SUCCESS(status)) VmbChannelCleanup(vsp->Channel);
  }
  if (!NT_SUCCESS(status)) {
    ExFreePoolWithTag(vsp, RAMDISK_TAG);
    return status;
  }
  VmbChannelStart(vsp->Channel);
  *Vsp = vsp;
  return STATUS_SUCCESS;
}

VOID RamdiskVspDestroy(RAMDISK_VSP* Vsp) {
  if (Vsp == NULL) return;
  VmbChannelDisable(Vsp->Channel);
  VmbChannelCleanup(Vsp->Channel);
  ExFreePoolWithTag(Vsp, RAMDISK_TAG);
}
