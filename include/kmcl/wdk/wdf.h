/* kmcl/wdk/wdf.h - as much of the driver framework as a driver needs to ask for KMCL's tables.
 *
 * There is no framework here. Its handles stand for device objects: WDFDEVICE and WDFIOTARGET are made
 * from a PDEVICE_OBJECT (kmcl/endpoint.h) by the two functions below, and nothing has to be undone.
 */
#ifndef KMCL_WDK_WDF_H
#define KMCL_WDK_WDF_H

#include <kmcl/nt.h>

#ifdef __cplusplus
extern "C" {
#endif

DECLARE_HANDLE(WDFDEVICE);
DECLARE_HANDLE(WDFIOTARGET);

/* The framework's words for a device object, and back. */
FORCEINLINE WDFDEVICE KmclWdfDevice(_In_ PDEVICE_OBJECT DeviceObject) {
    return (WDFDEVICE)(PVOID)DeviceObject;
}
FORCEINLINE WDFIOTARGET KmclWdfIoTarget(_In_ PDEVICE_OBJECT DeviceObject) {
    return (WDFIOTARGET)(PVOID)DeviceObject;
}
FORCEINLINE PDEVICE_OBJECT WdfDeviceWdmGetDeviceObject(_In_ WDFDEVICE Device) {
    return (PDEVICE_OBJECT)(PVOID)Device;
}
FORCEINLINE WDFIOTARGET WdfDeviceGetIoTarget(_In_ WDFDEVICE Device) {
    return (WDFIOTARGET)(PVOID)Device;
}

/* Fills *Interface with the table that `InterfaceType`, `Size` and `Version` name (kmcl/interface.h says
 * which there are). InterfaceSpecificData is not looked at. PASSIVE_LEVEL, any thread; does not block.
 * KMCL reference 2.5.
 *   STATUS_SUCCESS                 the table was filled in and holds a reference.
 *   STATUS_INVALID_PARAMETER       a NULL argument, or not a device object of an endpoint.
 *   STATUS_NOT_SUPPORTED           no such type or version, or not at this kind of endpoint.
 *   STATUS_BUFFER_TOO_SMALL        Size is below the table's.
 *   STATUS_INSUFFICIENT_RESOURCES  no memory. */
NTSTATUS WdfFdoQueryForInterface(_In_ WDFDEVICE Fdo, _In_ LPCGUID InterfaceType,
                                 _Out_ PINTERFACE Interface, _In_ USHORT Size, _In_ USHORT Version,
                                 _In_opt_ PVOID InterfaceSpecificData);
NTSTATUS WdfIoTargetQueryForInterface(_In_ WDFIOTARGET IoTarget, _In_ LPCGUID InterfaceType,
                                      _Out_ PINTERFACE Interface, _In_ USHORT Size,
                                      _In_ USHORT Version, _In_opt_ PVOID InterfaceSpecificData);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KMCL_WDK_WDF_H */
