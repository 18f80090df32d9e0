"""GLSL of the renderer. ITEM is what both programs know of the thing they draw, one block per item."""

ITEM_FLOATS = 28
ITEM = """#version 330
layout(std140) uniform Item {
    mat4 cam_from_mesh;
    vec4 metres;  // per mesh unit along its axes; repeats of the print per metre
    vec4 paint;   // tint; instance / 255
    vec4 look;    // layer of the print or -1, specular strength, specular exponent
};
"""

VERTEX = ITEM + """
uniform mat4 clip_from_cam;
in vec3 in_position, in_normal, in_colour;
in vec2 in_uv;
in float in_layer;
out vec3 cam, normal;
out vec2 uv;
flat out vec4 base;  // colour; texture layer or -1
void main() {
    vec4 point = cam_from_mesh * vec4(in_position, 1.0);
    cam = point.xyz;
    normal = mat3(cam_from_mesh) * (in_normal / (metres.xyz * metres.xyz));
    vec3 p = in_position * metres.xyz * metres.w;
    vec3 a = abs(in_normal);  // box mapping of prints along the strongest axis of the normal
    vec2 boxed = a.x > a.y && a.x > a.z ? p.zy : (a.y > a.z ? p.xz : p.xy);
    uv = look.x >= 0.0 ? boxed : in_uv;
    base = vec4(in_colour, look.x >= 0.0 ? look.x : in_layer);
    gl_Position = clip_from_cam * point;
}
"""

FRAGMENT = ITEM + """
uniform sampler2DArray pictures;
uniform sampler2DShadow shadow_map;
uniform mat4 shadow_from_cam;
uniform vec3 to_sun, sun, ambient;
uniform vec2 fill_and_shadow;
in vec3 cam, normal;
in vec2 uv;
flat in vec4 base;
out vec4 colour_and_instance;
void main() {
    vec4 texel = texture(pictures, vec3(uv, max(base.w, 0.0)));
    bool textured = base.w >= 0.0;
    if (textured && texel.a < 0.5) discard;
    vec3 to_eye = normalize(-cam);
    vec3 n = normalize(normal);
    if (dot(n, to_eye) < 0.0) n = -n;
    float lit = max(dot(n, to_sun), 0.0);
    float unblocked = 1.0;
    vec3 shadow_at = (shadow_from_cam * vec4(cam, 1.0)).xyz * 0.5 + 0.5;
    if (fill_and_shadow.y > 0.0 && all(greaterThan(shadow_at, vec3(0.0))) && all(lessThan(shadow_at, vec3(1.0))))
        unblocked -= fill_and_shadow.y
            * (1.0 - texture(shadow_map, shadow_at - vec3(0.0, 0.0, 0.006 + 0.01 * (1.0 - lit))));
    float gloss = look.y * pow(max(dot(n, normalize(to_sun + to_eye)), 0.0), look.z);
    vec3 light = ambient + fill_and_shadow.x * max(dot(n, to_eye), 0.0) + sun * lit * unblocked;
    vec3 colour = (textured ? texel.rgb : base.rgb) * paint.rgb * light + sun * gloss * unblocked;
    colour_and_instance = vec4(colour, paint.a);
}
"""

PLAIN_VERTEX = ITEM + """
uniform mat4 clip_from_cam;
in vec3 in_position;
void main() { gl_Position = clip_from_cam * (cam_from_mesh * vec4(in_position, 1.0)); }
"""

PLAIN_FRAGMENT = ITEM + """
out float instance;
void main() { instance = paint.a; }
"""
