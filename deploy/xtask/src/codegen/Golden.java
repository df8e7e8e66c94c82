// Writes the golden vectors for `cargo xtask codegen --golden`: messages whose fields are filled by a rule that
// the Rust tests follow too (tests/golden/filler.rs in the protocol crate), serialised by Kafka's own classes.
//
// Arguments: the folder to write to, then one `name:key:lowest version:highest version` per API.
//
// Which fields a version has, in which order, and where null is allowed is taken from the classes' schemas, not
// from the JSON definitions that the Rust code is generated from.

import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.ParameterizedType;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.message.RequestHeaderData;
import org.apache.kafka.common.message.ResponseHeaderData;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.MessageUtil;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.RawTaggedField;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.protocol.types.Type;
import org.apache.kafka.common.record.internal.MemoryRecords;

class Golden {
    enum Kind { FULL, SPARSE, PLAIN }

    final Kind kind;
    // Counts the values made so far in one message, so that no two are alike.
    int made = 0;

    Golden(Kind kind) {
        this.kind = kind;
    }

    public static void main(String[] arguments) throws Exception {
        for (int i = 1; i < arguments.length; i++) {
            String[] api = arguments[i].split(":");
            ApiMessageType type = ApiMessageType.fromApiKey(Short.parseShort(api[1]));
            StringBuilder lines = new StringBuilder();
            for (short version = Short.parseShort(api[2]); version <= Short.parseShort(api[3]); version++) {
                for (Kind kind : Kind.values()) {
                    line(lines, "request", version, kind, type.requestSchemas()[version], type.newRequest());
                    line(lines, "response", version, kind, type.responseSchemas()[version], type.newResponse());
                }
            }
            Files.writeString(Path.of(arguments[0], api[0] + ".txt"), lines.toString());
        }
        StringBuilder lines = new StringBuilder();
        for (short v = RequestHeaderData.LOWEST_SUPPORTED_VERSION; v <= RequestHeaderData.HIGHEST_SUPPORTED_VERSION; v++) {
            for (Kind kind : Kind.values()) {
                line(lines, "request", v, kind, RequestHeaderData.SCHEMAS[v], new RequestHeaderData());
            }
        }
        for (short v = ResponseHeaderData.LOWEST_SUPPORTED_VERSION; v <= ResponseHeaderData.HIGHEST_SUPPORTED_VERSION; v++) {
            for (Kind kind : Kind.values()) {
                line(lines, "response", v, kind, ResponseHeaderData.SCHEMAS[v], new ResponseHeaderData());
            }
        }
        Files.writeString(Path.of(arguments[0], "header.txt"), lines.toString());
    }

    static void line(StringBuilder lines, String side, short version, Kind kind, Schema schema, Message message)
            throws Exception {
        Golden golden = new Golden(kind);
        if (kind != Kind.PLAIN) {
            golden.fill(schema, message);
        }
        ByteBuffer buffer = MessageUtil.toByteBufferAccessor(message, version).buffer();
        byte[] bytes = new byte[buffer.remaining()];
        buffer.get(bytes);
        String name = kind.name().toLowerCase(Locale.ROOT);
        lines.append(side + " " + version + " " + name + " " + HexFormat.of().formatHex(bytes) + "\n");
    }

    void fill(Schema schema, Message message) throws Exception {
        for (BoundField field : schema.fields()) {
            if (field.def.type instanceof TaggedFields tagged) {
                // The map is sorted by tag.
                for (org.apache.kafka.common.protocol.types.Field inner : tagged.fields().values()) {
                    set(message, inner);
                }
                if (kind == Kind.FULL) {
                    int n = next();
                    message.unknownTaggedFields().add(new RawTaggedField(10_000 + n, bytes(n)));
                }
            } else {
                set(message, field.def);
            }
        }
    }

    void set(Message message, org.apache.kafka.common.protocol.types.Field field) throws Exception {
        Field target = find(message.getClass(), field.name);
        target.setAccessible(true);
        target.set(message, value(field.type, target.getType(), target.getGenericType()));
    }

    static Field find(Class<?> owner, String name) {
        for (Field field : owner.getDeclaredFields()) {
            if (field.getName().toLowerCase(Locale.ROOT).equals(name.replace("_", ""))) {
                return field;
            }
        }
        throw new IllegalStateException(owner + " has no " + name);
    }

    Object value(Type type, Class<?> target, java.lang.reflect.Type generic) throws Exception {
        if (kind == Kind.SPARSE && type.isNullable()) {
            return null;
        }
        if (type.isArray()) {
            return array(type.arrayElementType().get(), target, generic);
        }
        if (type instanceof Schema schema) {
            Constructor<?> constructor = target.getDeclaredConstructor();
            constructor.setAccessible(true);
            Message message = (Message) constructor.newInstance();
            fill(schema, message);
            return message;
        }
        return leaf(type.toString().replace("COMPACT_", "").replace("NULLABLE_", ""), target);
    }

    @SuppressWarnings("unchecked")
    Object array(Type element, Class<?> target, java.lang.reflect.Type generic) throws Exception {
        Collection<Object> elements;
        Class<?> elementClass;
        if (target == List.class) {
            elements = new ArrayList<>();
            elementClass = (Class<?>) ((ParameterizedType) generic).getActualTypeArguments()[0];
        } else {
            elements = (Collection<Object>) target.getDeclaredConstructor().newInstance();
            elementClass = (Class<?>) ((ParameterizedType) target.getGenericSuperclass()).getActualTypeArguments()[0];
        }
        for (int i = 0; i < (kind == Kind.FULL ? 2 : 1); i++) {
            elements.add(value(element, elementClass, elementClass));
        }
        return elements;
    }

    Object leaf(String type, Class<?> target) {
        boolean full = kind == Kind.FULL;
        int n = next();
        switch (type) {
            case "BOOLEAN": return full && n % 2 == 1;
            case "INT8": return full ? (byte) (n & 0x7f) : (byte) -1;
            case "INT16": return full ? (short) (n * 257) : (short) -1;
            case "UINT16": return full ? (n * 257) & 0xffff : 0xffff;
            case "INT32": return full ? n * 0x010101 : -1;
            case "INT64": return full ? n * 0x0101_0101_0101L : -1L;
            case "FLOAT64": return full ? n + 0.25 : -1.0;
            case "UUID": return full ? new Uuid(n, ~(long) n) : Uuid.ZERO_UUID;
            case "STRING": return full ? string(n) : "";
            case "BYTES":
                byte[] bytes = full ? bytes(n) : new byte[0];
                return target == ByteBuffer.class ? ByteBuffer.wrap(bytes) : bytes;
            case "RECORDS": return MemoryRecords.readableRecords(ByteBuffer.wrap(full ? bytes(n) : new byte[0]));
            default: throw new IllegalStateException("no rule for " + type);
        }
    }

    int next() {
        made += 1;
        return made;
    }

    // Every eighth is long enough for a length of two bytes as a varint.
    static String string(int n) {
        return ("é" + n).repeat(n % 8 == 0 ? 40 : 1);
    }

    // Every eighth is long enough to be spliced, not copied, by the Rust writer.
    static byte[] bytes(int n) {
        byte[] bytes = new byte[n % 8 == 0 ? 1500 : 3];
        for (int i = 0; i < bytes.length; i++) {
            bytes[i] = (byte) (n + i);
        }
        return bytes;
    }
}
